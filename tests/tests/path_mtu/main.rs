//! The MTU of the way between hosts: a router on it that carries less than the uplinks, the daemon that learns of
//! it, keeps it and forgets it, forged messages, and an uplink whose MTU changes.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod bed;
mod forged;
mod lifetime;
mod router;
mod uplink;
