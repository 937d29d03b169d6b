//! The etcd store against a real etcd.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod access;
mod announce;
mod contest;
mod dual;
mod etcd;
mod faults;
mod guard;
mod leases;
mod rivals;
mod watch;
