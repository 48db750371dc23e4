//! What tests share: a server in this process, an image builder, a test clock, raw sockets.
