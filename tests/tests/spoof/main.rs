//! Forged, foreign and broken packets, from the wire and from containers: none is delivered, each is counted
//! under its name, and the valid traffic that runs all the while arrives whole.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod bed;
mod containers;
mod nested;
mod truncation;
mod wire;
