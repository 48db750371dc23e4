//! Bytes: resumable uploads, verified writes and ranged reads.
