//! Taking over from a build with another map layout, without a gap: its entries are carried into maps of this build's
//! layout, its links are given this build's programs one by one, and its pins go last.
//!
//! The other layout's maps stay as they are until every link has left them: a daemon that dies on the way leaves links
//! with old programs over old maps and links with new programs over new ones, which say the same, and the next start
//! goes on from there. Layouts differ in what stands at the end of a map's values, and nowhere else (docs/adr/0019).

use std::{fs, io};

use bytemuck::Zeroable;
use overlay_common::map::{Status, name};
use tracing::info;

use super::{DatapathError, attach, map::RawMap, pin::Pins};

/// What is not carried over: messages under way, what CPUs remember of the tables, and when they last sampled.
const LEFT: [&str; 6] =
    [name::EVENTS, name::SAMPLES, name::SAMPLED, name::GENERATION, name::EGRESS_FLOWS, name::INGRESS_FLOWS];

/// The data paths of other layouts under a pin directory, of which one is left as a rule: two where a takeover was broken off
/// and a third build came. The one that a daemon wrote to last comes first.
///
/// # Errors
/// [`DatapathError::Io`] where the directory cannot be read.
pub fn others(pins: &Pins) -> Result<Vec<Pins>, DatapathError> {
    let mut others: Vec<Pins> = pins.other_layouts()?.into_iter().filter(Pins::is_here).collect();
    others.sort_by_key(|other| std::cmp::Reverse(status(other).map_or(0, |status| status.heartbeat)));
    Ok(others)
}

/// What a daemon of any layout last said of itself.
///
/// # Errors
/// [`DatapathError::Map`].
pub fn status(pins: &Pins) -> Result<Status, DatapathError> {
    let mut status = Status::zeroed();
    if let Some(value) = RawMap::open(pins, name::STATUS)?.get(&[0; 4])? {
        let both = value.len().min(size_of::<Status>());
        bytemuck::bytes_of_mut(&mut status)[..both].copy_from_slice(&value[..both]);
    }
    Ok(status)
}

/// How many routes a data path of any layout has.
///
/// # Errors
/// [`DatapathError::Map`].
pub fn routes_in_force(pins: &Pins) -> Result<usize, DatapathError> {
    let count = |name| RawMap::open(pins, name)?.keys().map(|keys| keys.len());
    Ok(count(name::ROUTES_V4)? + count(name::ROUTES_V6)?)
}

/// Enters what the other layout's maps hold into this build's, which are pinned already.
///
/// # Errors
/// [`DatapathError::Layout`] for a map whose keys are others, [`DatapathError::Map`].
pub fn carry(from: &Pins, to: &Pins) -> Result<(), DatapathError> {
    let mut entries = 0;
    // A build that knew fewer maps has nothing in the others.
    for map in name::ALL.into_iter().filter(|map| !LEFT.contains(map) && from.map(map).exists()) {
        entries += RawMap::open(to, map)?.take_from(&RawMap::open(from, map)?)?;
    }
    info!("taking over from layout {}: {entries} entries carried", from.layout_name());
    Ok(())
}

/// Has the other layout's links found where this build looks for them. They run what they ran until it attaches.
///
/// # Errors
/// [`DatapathError::Io`].
pub fn move_links(from: &Pins, to: &Pins) -> Result<(), DatapathError> {
    let entries = match fs::read_dir(from.links()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => {
            entries.map_err(|source| DatapathError::Io { action: "read", path: from.links(), source })?
        }
    };
    for entry in entries.flatten() {
        let (old, new) = (entry.path(), to.links().join(entry.file_name()));
        // What is there is this build's own, made since.
        if !new.exists() {
            fs::rename(&old, &new).map_err(|source| DatapathError::Io {
                action: "move to the new layout",
                path: old,
                source,
            })?;
        }
    }
    Ok(())
}

/// Removes every data path under a pin directory, of this layout and of others.
///
/// # Errors
/// As [`attach::detach_all`] and [`Pins::remove`].
pub fn remove_all(pins: &Pins) -> Result<(), DatapathError> {
    for layout in pins.other_layouts()?.iter().chain([pins]) {
        attach::detach_all(layout)?;
        layout.remove()?;
    }
    Ok(())
}
