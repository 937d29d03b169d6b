//! Endpoints of a bridge's IPv6 subnet: how they become known, age and go, and who may not claim them.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod advertisement;
mod bed;
mod claims;
mod life;
