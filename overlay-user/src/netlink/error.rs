//! Why the kernel did not do what was asked: the operation and its object, the errno, the kernel's words.

use std::{fmt, io};

use netlink_packet_core::{ErrorMessage, NlasIterator, parse_string};
use nix::errno::Errno;

/// A request that failed. The text names the operation, its object and the kernel's reason.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}: {cause}")]
pub struct NetlinkError {
    operation: String,
    cause: Cause,
}

impl NetlinkError {
    pub(super) fn new(operation: impl Into<String>, cause: Cause) -> Self {
        Self { operation: operation.into(), cause }
    }

    /// The kernel's errno, where it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        self.cause.errno()
    }
}

/// What went wrong, before it is known in which operation.
#[derive(Debug)]
pub(super) enum Cause {
    /// The kernel refused; `detail` is its extended acknowledgement, where it gave one.
    Kernel { errno: i32, detail: Option<String> },
    /// The socket could not be opened or set up.
    Socket(io::Error),
    /// The request socket is gone.
    Closed,
    /// No answer within this many seconds.
    TimedOut(u64),
    /// The table changed during this many dumps in a row.
    Restless(usize),
    /// The answer made no sense.
    Unexpected,
}

impl Cause {
    /// The errno of a kernel's or socket's refusal.
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } => Some(Errno::from_raw(*errno)),
            Self::Socket(error) => error.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }

    /// True where the kernel refused with one of `errnos`.
    pub(super) fn is_any(&self, errnos: &[Errno]) -> bool {
        self.errno().is_some_and(|errno| errnos.contains(&errno))
    }

    /// From a negative acknowledgement.
    pub(super) fn refused(message: &ErrorMessage) -> Self {
        Self::Kernel { errno: message.raw_code().saturating_abs(), detail: extended_ack(&message.header) }
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { errno, detail } => {
                write!(f, "{}", io::Error::from_raw_os_error(*errno))?;
                detail.iter().try_for_each(|detail| write!(f, ": {detail}"))
            }
            Self::Socket(error) => error.fmt(f),
            Self::Closed => f.write_str("the netlink socket is closed"),
            Self::TimedOut(seconds) => write!(f, "the kernel did not answer within {seconds} s"),
            Self::Restless(dumps) => write!(f, "the table changed during each of {dumps} dumps in a row"),
            Self::Unexpected => f.write_str("the kernel's answer was not of the expected kind"),
        }
    }
}

/// The kernel's own words (NLMSGERR_ATTR_MSG), which follow the header of the refused request.
///
/// With NETLINK_CAP_ACK the request's payload is left out, so the attributes start right after the header.
fn extended_ack(echo: &[u8]) -> Option<String> {
    const NLMSG_HEADER_LEN: usize = 16;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    NlasIterator::new(echo.get(NLMSG_HEADER_LEN..)?)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .and_then(|attribute| parse_string(attribute.value()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_operation_errno_and_the_kernels_words() {
        let mut echo = vec![0; 16];
        echo.extend([10, 0, 1, 0]);
        echo.extend(b"hello\0\0\0");
        let cause = Cause::Kernel { errno: Errno::EINVAL as i32, detail: extended_ack(&echo) };
        let error = NetlinkError::new("set route 172.27.0.0/16 dev docker0", cause);
        assert_eq!(
            error.to_string(),
            "cannot set route 172.27.0.0/16 dev docker0: Invalid argument (os error 22): hello"
        );
        assert_eq!(error.errno(), Some(Errno::EINVAL));
    }

    #[test]
    fn an_echo_without_words_has_no_detail() {
        assert_eq!(extended_ack(&[]), None);
        assert_eq!(extended_ack(&[0; 16]), None);
        assert_eq!(extended_ack(&[0xff; 21]), None);
    }
}
