//! How the C library gives out memory.

/// Just over the largest pieces in which blobs are read and written, which come too often for a system call each.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: i32 = (1 << 20) + (64 << 10);

/// Has every block of more than about a mebibyte mapped by itself, so that it goes back to the system when it is freed.
///
/// By default glibc raises this limit, up to 32 MiB, to the size of whatever is freed, and from then on keeps such blocks in
/// one of many arenas: manifests and pages of megabytes, held by the few at a time, grow to hundreds of mebibytes that
/// nothing uses. Setting the limit also ends its rising.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "there is no other way to set it from inside, and SQLite allocates by the C library")]
pub fn return_large_blocks() {
    // SAFETY: `mallopt` takes two plain integers; it is called before there is a second thread. If it is refused, memory is
    // kept as by default.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
    }
}

/// Other C libraries have no such setting.
#[cfg(not(target_env = "gnu"))]
pub fn return_large_blocks() {}
