//! How a party's memory is kept.

/// One heap for all threads. glibc gives each thread a heap of its own, and each keeps what the largest query once took; a party
/// allocates rarely and in large pieces, so that its threads hardly ever wait for one another. To be called before there are
/// threads; without glibc, nothing changes.
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    allow(
        unsafe_code,
        reason = "no library offers it safely; the call takes two numbers and touches no memory of ours"
    )
)]
pub(crate) fn share() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
