//! XDP programs on links (IFLA_XDP).

use std::fmt;

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp},
};

use super::{Netlink, NetlinkError, link};

/// Where in a device's receive path an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, before tc.
    Generic,
    /// On the NIC itself.
    Offloaded,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
        })
    }
}

/// An XDP program on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpProgram {
    /// The link.
    pub ifindex: u32,
    /// The program.
    pub id: u32,
    /// How it runs.
    pub mode: XdpMode,
}

impl Netlink {
    /// The XDP programs of all links; one link may have one of each mode.
    pub async fn xdp_programs(&self) -> Result<Vec<XdpProgram>, NetlinkError> {
        let answers = self
            .dump(RouteNetlinkMessage::GetLink(link::request()), |answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(of_link(message)),
                _ => None,
            })
            .await;
        let answers = answers.map_err(|cause| NetlinkError::new("list XDP programs", cause))?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// The id of an interface's XDP program, in whatever mode.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub async fn xdp_program(&self, index: u32) -> Result<Option<u32>, NetlinkError> {
        let mut message = link::request();
        message.header.index = index;
        match self.requests.get(RouteNetlinkMessage::GetLink(message)).await {
            Ok(RouteNetlinkMessage::NewLink(message)) => {
                Ok(of_link(&message).first().map(|program| program.id))
            }
            Ok(_) => Ok(None),
            Err(cause) => Err(NetlinkError::new(format!("look up the link with index {index}"), cause)),
        }
    }
}

fn of_link(message: &LinkMessage) -> Vec<XdpProgram> {
    let ifindex = message.header.index;
    let attributes = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    });
    let program = |attribute: &LinkXdp| {
        // IFLA_XDP_PROG_ID repeats one of these, where there is but one.
        let (id, mode) = match attribute {
            LinkXdp::DrvProgId(id) => (*id, XdpMode::Native),
            LinkXdp::SkbProgId(id) => (*id, XdpMode::Generic),
            LinkXdp::HwProgId(id) => (*id, XdpMode::Offloaded),
            _ => return None,
        };
        Some(XdpProgram { ifindex, id, mode })
    };
    attributes.flatten().filter_map(program).collect()
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::XdpAttached;

    use super::*;

    #[test]
    fn each_mode_has_its_program() {
        let mut message = LinkMessage::default();
        message.header.index = 4;
        assert_eq!(of_link(&message), []);
        message.attributes.push(LinkAttribute::Xdp(vec![LinkXdp::Attached(XdpAttached::None)]));
        assert_eq!(of_link(&message), []);
        message.attributes = vec![LinkAttribute::Xdp(vec![
            LinkXdp::Attached(XdpAttached::Multiple),
            LinkXdp::DrvProgId(8),
            LinkXdp::SkbProgId(9),
        ])];
        let of = |id, mode| XdpProgram { ifindex: 4, id, mode };
        assert_eq!(of_link(&message), [of(8, XdpMode::Native), of(9, XdpMode::Generic)]);
    }
}
