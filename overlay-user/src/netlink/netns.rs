//! Which network namespace this is.

use std::io;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};

mod option {
    use nix::{getsockopt_impl, libc, sockopt_impl};

    sockopt_impl!(
        /// SO_NETNS_COOKIE, kernel 5.14.
        NetnsCookie,
        GetOnly,
        libc::SOL_SOCKET,
        libc::SO_NETNS_COOKIE,
        u64
    );
}

/// The cookie of the calling thread's network namespace (kernel 5.14): unique until the next boot and
/// never used again, unlike the inode number of a namespace.
pub fn cookie() -> io::Result<u64> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    Ok(getsockopt(&socket, option::NetnsCookie)?)
}

/// Whether a cookie from a `STATUS` map is this namespace's. A map that was never written has 0, and is
/// nobody's yet.
pub fn is_here(noted: u64) -> io::Result<bool> {
    Ok(noted == 0 || noted == cookie()?)
}
