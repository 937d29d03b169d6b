//! Which XDP program an interface has.

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkXdp},
};

use super::{Netlink, NetlinkError, link::request};

impl Netlink {
    /// The id of an interface's XDP program, in whatever mode.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub async fn xdp_program(&self, index: u32) -> Result<Option<u32>, NetlinkError> {
        let mut message = request();
        message.header.index = index;
        match self.requests.get(RouteNetlinkMessage::GetLink(message)).await {
            Ok(RouteNetlinkMessage::NewLink(message)) => {
                Ok(message.attributes.iter().find_map(|attribute| match attribute {
                    LinkAttribute::Xdp(xdp) => xdp.iter().find_map(|xdp| match xdp {
                        LinkXdp::ProgId(id) => Some(*id),
                        _ => None,
                    }),
                    _ => None,
                }))
            }
            Ok(_) => Ok(None),
            Err(cause) => Err(NetlinkError::new(format!("look up the link with index {index}"), cause)),
        }
    }
}
