//! The etcd store against a real etcd.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod announce;
mod etcd;
mod faults;
mod watch;
