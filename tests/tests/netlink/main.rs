//! The netlink layer against the kernel and against what `ip` and `bridge` say. Needs root: every test
//! makes network namespaces of its own, which vanish with its thread.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails, in its helpers too")]

mod addresses;
mod filters;
mod links;
mod monitor;
mod monitor_v6;
mod namespace;
mod neighbours;
mod next_hops;
mod overlay_v6;
mod routes;
mod rules;
mod settings;
mod tunnels;
