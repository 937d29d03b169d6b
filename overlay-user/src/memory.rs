//! The allocator. With many peers the daemon's memory comes in waves: what a look at everything took is free again
//! after it, and glibc would keep it, once for each thread that took part.

#[cfg(target_env = "gnu")]
use nix::libc;

/// Has one arena for all threads, and large blocks given back as soon as they are free. To be called before there are
/// other threads.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers, and touches only the allocator's settings.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // Named, it does not grow with the blocks that are freed.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
    }
}

/// Gives what is free back to the kernel.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
