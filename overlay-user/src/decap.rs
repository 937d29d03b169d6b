//! Where the uplinks' tunnel packets are decapsulated: chosen by what each uplink is, proved before it is relied
//! on, and told in words.
//!
//! XDP begins with a trial: until a packet has shown that metadata reach `uplink_ingress`, `uplink_ingress`
//! decapsulates. And it ends with a grace: what was decapsulated before is taken for a while.

mod choice;
mod uplink;

use std::collections::{BTreeMap, BTreeSet};

use overlay_common::map::program::UPLINK_DECAP;

use self::uplink::OfUplink;
use crate::{
    config::DecapMode,
    datapath::{DatapathError, Tools, map::Maps, pin::Pins, xdp},
    exit::one_line,
    local::Uplink,
};

/// The decapsulation of the uplinks, by their indexes.
#[derive(Debug, Default)]
pub struct Decap {
    uplinks: BTreeMap<u32, OfUplink>,
}

impl Decap {
    /// Brings each uplink's decapsulation where `mode` and the uplink want it; to be called again and again.
    ///
    /// # Errors
    /// A line for each uplink where XDP was asked for and cannot be had, or that cannot be looked at; tc decapsulates
    /// there then.
    pub async fn sync(
        &mut self,
        mode: DecapMode,
        uplinks: &[Uplink],
        tools: Tools<'_>,
    ) -> Result<(), BTreeSet<String>> {
        let mut tools = tools;
        let mut troubles = BTreeSet::new();
        troubles.extend(forget_others(uplinks, tools.maps, tools.pins).err().map(words));
        self.uplinks.retain(|index, _| uplinks.iter().any(|uplink| uplink.index == *index));
        for uplink in uplinks {
            let link = match tools.netlink.link_by_index(uplink.index).await {
                Ok(Some(link)) => link,
                // The look around tells of an uplink that is gone.
                Ok(None) => continue,
                Err(error) => {
                    troubles.insert(error.to_string());
                    continue;
                }
            };
            let state = self.uplinks.entry(uplink.index).or_default();
            troubles.extend(state.sync(mode, &link, tools.reborrow()).await.err());
        }
        if troubles.is_empty() { Ok(()) } else { Err(troubles) }
    }
}

/// Removes what belongs to uplinks of before.
fn forget_others(uplinks: &[Uplink], maps: &mut Maps, pins: &Pins) -> Result<(), DatapathError> {
    let is_one = |ifindex| uplinks.iter().any(|uplink| uplink.index == ifindex);
    for (ifindex, name) in pins.pinned_links()? {
        if name == UPLINK_DECAP && !is_one(ifindex) {
            xdp::detach(pins, ifindex)?;
        }
    }
    for (ifindex, _) in maps.decaps()? {
        if !is_one(ifindex) {
            maps.delete_decap(ifindex)?;
        }
    }
    Ok(())
}

/// An error on one line.
fn words(error: DatapathError) -> String {
    one_line(&error.into())
}
