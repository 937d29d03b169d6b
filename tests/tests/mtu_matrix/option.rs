//! Socket options that nix does not know.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    libc::{self, c_int},
    setsockopt_impl, sockopt_impl,
};

/// `include/uapi/linux/if_packet.h`; libc does not have it.
const PACKET_VNET_HDR: c_int = 15;

sockopt_impl!(IpMtuDiscover, SetOnly, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, c_int);
sockopt_impl!(TcpSaveSyn, SetOnly, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, c_int);
sockopt_impl!(PacketVnetHdr, SetOnly, libc::SOL_PACKET, PACKET_VNET_HDR, c_int);

/// The MSS option of the SYN that began an accepted connection, whose listener has [`TcpSaveSyn`].
pub(crate) fn mss_of_syn(socket: &impl AsFd) -> Result<u32> {
    // An IPv4 header and a TCP header, both with all the options they can have.
    let mut syn = [0_u8; 120];
    let mut len = libc::socklen_t::try_from(syn.len())?;
    // SAFETY: the kernel writes at most `len` bytes into `syn`, which is that long, and the length into `len`;
    // both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            syn.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    Errno::result(result).context("TCP_SAVED_SYN")?;
    mss(&syn[..len as usize]).context("a SYN without MSS")
}

fn mss(syn: &[u8]) -> Option<u32> {
    let tcp = syn.get(usize::from(syn.first()? & 0x0f) * 4..)?;
    let mut options = tcp.get(20..usize::from(tcp.get(12)? >> 4) * 4)?;
    loop {
        options = match options {
            [2, 4, high, low, ..] => return Some(u32::from(u16::from_be_bytes([*high, *low]))),
            [1, rest @ ..] => rest,
            [_, len, ..] if *len >= 2 => options.get(usize::from(*len)..)?,
            _ => return None,
        };
    }
}

/// Sets one option; an error names it.
pub(crate) fn set<O>(socket: &impl AsFd, option: O, value: &O::Val) -> Result<()>
where
    O: nix::sys::socket::SetSockOpt + std::fmt::Debug + Copy,
{
    let result = nix::sys::socket::setsockopt(socket, option, value);
    ensure!(result.is_ok(), "setsockopt {option:?}: {result:?}");
    Ok(())
}
