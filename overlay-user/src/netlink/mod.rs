//! The kernel's links, addresses, neighbours, FDB, routes and rules, over rtnetlink.
//!
//! [`Netlink`] asks and changes; [`Monitor`] tells what changes. Both belong to the network namespace of
//! the thread that called [`Netlink::connect`], wherever their tasks run later: a socket keeps the
//! namespace it was made in. sysfs is never asked: what it shows is the namespace it was mounted in.

mod address;
mod clsact;
mod driver;
mod dump;
mod error;
mod event;
mod family;
mod fdb;
mod filter;
mod link;
mod monitor;
mod neighbour;
pub mod netns;
mod next_hop;
mod nexthop_object;
mod request;
mod route;
mod rule;
mod udp_tunnel;
mod vni_filter;
mod xdp;

use netlink_packet_route::RouteNetlinkMessage;

pub use self::{
    clsact::{ClsactFilter, Filters},
    driver::driver,
    error::NetlinkError,
    event::{Event, RouteChange},
    family::Family,
    fdb::{FdbEntry, FdbKind},
    filter::{Filter, Filtered, Hook},
    link::Link,
    monitor::Monitor,
    neighbour::{Neighbour, NudState},
    next_hop::NextHop,
    route::{MAIN_TABLE, OverlayRoute, RouteEntry},
    rule::OverlayRule,
    udp_tunnel::{TunnelSettings, UdpTunnel},
    xdp::{XdpMode, XdpProgram},
};
use self::{
    dump::Dumps, error::Cause, filter::TrafficMessage, nexthop_object::NexthopMessage, request::Requests,
    vni_filter::TunnelMessage,
};

/// Requests to the kernel's routing subsystem, in one network namespace. Clones share its sockets.
#[derive(Clone, Debug)]
pub struct Netlink {
    requests: Requests<RouteNetlinkMessage>,
    tunnel_requests: Requests<TunnelMessage>,
    traffic_requests: Requests<TrafficMessage>,
    object_requests: Requests<NexthopMessage>,
    dumps: Dumps,
}

impl Netlink {
    /// Opens a request socket and a monitor socket in the calling thread's network namespace.
    ///
    /// To be called inside a tokio runtime with I/O and time enabled. The monitor hears all that happens
    /// from here on, so a dump made after this call and the monitor's events together miss nothing.
    pub fn connect() -> Result<(Self, Monitor), NetlinkError> {
        let open = |cause| NetlinkError::new("open a routing netlink socket", cause);
        let monitor = Monitor::open().map_err(|error| open(Cause::from(error)))?;
        let requests = Requests::open().map_err(|error| open(Cause::from(error)))?;
        let tunnel_requests = Requests::open().map_err(|error| open(Cause::from(error)))?;
        let traffic_requests = Requests::open().map_err(|error| open(Cause::from(error)))?;
        let object_requests = Requests::open().map_err(|error| open(Cause::from(error)))?;
        let dumps = Dumps::open().map_err(|error| open(Cause::from(error)))?;
        Ok((Self { requests, tunnel_requests, traffic_requests, object_requests, dumps }, monitor))
    }

    /// Dumps a table and keeps what `select` makes of its entries.
    async fn dump<T>(
        &self,
        request: RouteNetlinkMessage,
        select: impl Fn(&RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, Cause> {
        self.dumps.dump(request, |_| true, select)
    }

    /// An interface as an error message names it. Asked only once something has failed.
    async fn device(&self, ifindex: u32) -> String {
        match self.link_by_index(ifindex).await {
            Ok(Some(link)) => link.name,
            _ => format!("(index {ifindex})"),
        }
    }
}
