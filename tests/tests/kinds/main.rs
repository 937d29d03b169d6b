//! Every kind of tunnel between two overlayds, alone and mixed.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod bed;
mod direct;
mod expected;
mod forged;
mod large;
mod matrix;
mod mixed;
mod switch;
