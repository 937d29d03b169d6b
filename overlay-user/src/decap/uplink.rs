//! One uplink's way from tc to XDP and back.

use std::{fs::File, io::Read, time::Duration};

use bytemuck::Zeroable;
use overlay_common::map::{Decap as Entry, DecapState, MAX_PROBES};
use tokio::time::Instant;
use tracing::info;

use super::{
    choice::{Choice, Place, choose},
    words,
};
use crate::{
    config::DecapMode,
    datapath::{
        DatapathError, Tools,
        map::Maps,
        xdp::{self, Refusal},
    },
    netlink::{Link, Netlink, driver},
    status,
};

/// How long packets that XDP has decapsulated may take to `uplink_ingress`: they wait in GRO and in a backlog,
/// for milliseconds.
const GRACE: Duration = Duration::from_secs(2);

/// The decapsulation of an uplink, as this daemon keeps it.
#[derive(Debug, Default)]
pub(super) struct OfUplink {
    /// Whether it has this build's program.
    attached: bool,
    /// Why XDP will not do, however often it is tried.
    barred: Option<String>,
    /// Its driver, once it was asked for, as it told its name.
    driver: Option<Option<String>>,
    /// Since when what is left of XDP is waited for.
    draining: Option<Instant>,
}

impl OfUplink {
    /// Brings the uplink's decapsulation where `mode` and the uplink want it.
    ///
    /// # Errors
    /// One line where XDP was asked for and cannot be had; tc decapsulates then.
    pub(super) async fn sync(
        &mut self,
        mode: DecapMode,
        link: &Link,
        mut tools: Tools<'_>,
    ) -> Result<(), String> {
        let driver = self.driver(link);
        let mut choice = choose(mode, link, driver.as_deref());
        if let Some(why) = &self.barred {
            choice = Choice { place: Place::Tc, why: why.clone() };
        } else if choice.place == Place::Xdp {
            let refusal = self.advance(link, &choice.why, driver.as_deref(), &mut tools).await?;
            let Some(why) = refusal else { return Ok(()) };
            self.barred = Some(why.clone());
            choice = Choice { place: Place::Tc, why };
        }
        self.fall_back(link, &choice.why, tools).map_err(words)?;
        if self.barred.is_some() { refused(mode, link, &choice.why) } else { Ok(()) }
    }

    /// The uplink's driver: asked for once, since the question waits for all who change links.
    fn driver(&mut self, link: &Link) -> Option<String> {
        self.driver.get_or_insert_with(|| driver(&link.name).ok().flatten()).clone()
    }

    /// Towards XDP. Returns why it will not do, where it will not.
    async fn advance(
        &mut self,
        link: &Link,
        why: &str,
        driver: Option<&str>,
        tools: &mut Tools<'_>,
    ) -> Result<Option<String>, String> {
        let Some(mac) = link.mac else {
            return Ok(Some(format!("{} has no Ethernet header, which XDP here goes by", link.name)));
        };
        let old = tools.maps.decap(link.index).map_err(words)?;
        let mut entry = match old {
            Some(entry) if going(&entry) && xdp::is_pinned(tools.pins, link.index) => entry,
            old => on_trial(old).map_err(|error| format!("cannot draw a token: {error}"))?,
        };
        entry.mac = mac;
        self.draining = None;
        // Before the program, which would find nothing to go by.
        put(tools.maps, link.index, old, &mut entry, why).map_err(words)?;
        if !self.attached {
            match xdp::attach(tools.programs, tools.pins, link.index, &link.name) {
                Ok(_) => self.attached = true,
                Err(refusal) => return Ok(Some(describe(refusal, link, driver, tools.netlink).await)),
            }
        }
        if DecapState::from_number(entry.state) == DecapState::Trial {
            return judge(link, entry, driver, tools.maps);
        }
        Ok(None)
    }

    /// Towards tc.
    fn fall_back(&mut self, link: &Link, why: &str, tools: Tools<'_>) -> Result<(), DatapathError> {
        let old = tools.maps.decap(link.index)?;
        let mut entry = old.unwrap_or_else(Entry::zeroed);
        if going(&entry) {
            entry.state = DecapState::Draining as u32;
        }
        let draining = DecapState::from_number(entry.state) == DecapState::Draining;
        let since = *self.draining.get_or_insert_with(Instant::now);
        if !draining || since.elapsed() >= GRACE {
            entry = Entry { reason: entry.reason, ..Entry::zeroed() };
            self.draining = None;
        }
        // Before the program goes: not one packet is stripped that nobody would believe.
        put(tools.maps, link.index, old, &mut entry, why)?;
        self.attached = false;
        xdp::detach(tools.pins, link.index)
    }
}

/// Where XDP was asked for, tc is no answer.
fn refused(mode: DecapMode, link: &Link, why: &str) -> Result<(), String> {
    if mode == DecapMode::Xdp {
        let name = &link.name;
        return Err(format!("--decap xdp cannot be had on {name}: {why}; use --decap auto or tc"));
    }
    Ok(())
}

/// True where the XDP program may decapsulate now or soon.
fn going(entry: &Entry) -> bool {
    matches!(DecapState::from_number(entry.state), DecapState::Trial | DecapState::Xdp)
}

/// An entry that begins a trial. A token stays: packets that bear it may be on their way.
fn on_trial(old: Option<Entry>) -> std::io::Result<Entry> {
    let mut token = old.map_or([0; 2], |entry| entry.token);
    while token == [0; 2] {
        File::open("/dev/urandom")?.read_exact(bytemuck::bytes_of_mut(&mut token))?;
    }
    Ok(Entry { token, state: DecapState::Trial as u32, ..Entry::zeroed() })
}

/// Writes an entry where it is another, and tells of another state.
fn put(
    maps: &mut Maps,
    ifindex: u32,
    old: Option<Entry>,
    entry: &mut Entry,
    why: &str,
) -> Result<(), DatapathError> {
    entry.reason = status::field(why);
    if old == Some(*entry) {
        return Ok(());
    }
    let state = DecapState::from_number(entry.state);
    if old.is_none_or(|old| old.state != entry.state || old.reason != entry.reason) {
        info!(decap = state.name(), "{why}");
    }
    maps.put_decap(ifindex, *entry)
}

/// Ends a trial that has come to something. Returns why XDP will not do, where it will not.
fn judge(link: &Link, entry: Entry, driver: Option<&str>, maps: &mut Maps) -> Result<Option<String>, String> {
    let entry = maps.decap(link.index).map_err(words)?.unwrap_or(entry);
    if entry.heard > 0 {
        let mut proved = Entry { state: DecapState::Xdp as u32, ..entry };
        let why = status::text(&entry.reason);
        put(maps, link.index, Some(entry), &mut proved, &why).map_err(words)?;
    } else if entry.refused > 0 || entry.probes >= MAX_PROBES {
        let driver = driver.unwrap_or("unknown");
        return Ok(Some(format!(
            "the driver of {} ({driver}) does not keep what XDP says of a packet",
            link.name
        )));
    }
    Ok(None)
}

/// In words why the program is not attached.
async fn describe(refusal: Refusal, link: &Link, driver: Option<&str>, netlink: &Netlink) -> String {
    let name = &link.name;
    match refusal {
        Refusal::Taken => match netlink.xdp_program(link.index).await {
            Ok(Some(id)) => format!("{name} has another XDP program (id {id})"),
            _ => format!("{name} has another XDP program"),
        },
        Refusal::NotNative => {
            format!("the driver of {name} ({}) has no native XDP", driver.unwrap_or("unknown"))
        }
        Refusal::Failed(error) => words(error),
    }
}
