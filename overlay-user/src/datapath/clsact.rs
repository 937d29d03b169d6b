//! Attaching where the kernel has no tcx (before 6.6): direct-action filters on the device's clsact, which is added
//! where there is none. A filter has no link to pin; its program is pinned in the link's place instead, and tells
//! which filters are ours. A pin of its own says that the clsact was added by us.

use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::programs::SchedClassifier;
use nix::net::if_::if_nametoindex;

use super::{
    DatapathError,
    attach::Attachment,
    pin::{Pins, ReplaceError},
};
use crate::netlink::{Filters, Hook};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Attaches a program, or replaces the one that is there. Returns true where one was replaced.
pub(super) fn attach(
    classifier: &mut SchedClassifier,
    pins: &Pins,
    attachment: &Attachment,
    hook: Hook,
) -> Result<bool, Source> {
    let filters = Filters::open()?;
    let Attachment { ifindex, program } = *attachment;
    ensure_clsact(&filters, classifier, pins, ifindex)?;
    let adopted = filters.list(ifindex, hook)?.iter().any(|filter| filter.is_ours(program));
    // First the pin: a filter that is not there is easily removed, one that nobody knows of stays.
    replace_pin(classifier, &pins.link(ifindex, program))?;
    filters.put(ifindex, hook, program, classifier.fd()?.as_fd())?;
    Ok(adopted)
}

/// Adds a clsact where there is none, and notes before that it is ours.
fn ensure_clsact(
    filters: &Filters,
    classifier: &mut SchedClassifier,
    pins: &Pins,
    ifindex: u32,
) -> Result<(), Source> {
    if filters.has_clsact(ifindex)? {
        return Ok(());
    }
    replace_pin(classifier, &note(pins, ifindex))?;
    let added = filters.add_clsact(ifindex);
    if !matches!(added, Ok(true)) {
        remove_pin(&note(pins, ifindex))?;
    }
    Ok(added.map(drop)?)
}

/// What notes that the clsact of a device is ours. A pin is all that a bpffs holds, so it is one of a program.
fn note(pins: &Pins, ifindex: u32) -> PathBuf {
    pins.link(ifindex, "clsact")
}

fn replace_pin(classifier: &mut SchedClassifier, path: &Path) -> Result<(), Source> {
    Pins::replace(path, |path| classifier.pin(path)).map_err(|error| match error {
        ReplaceError::Pin(error) => error.into(),
        ReplaceError::Io(error) => error.into(),
    })
}

/// Detaches a program: the filter, its pin, and the clsact where it is ours and nobody else uses it.
pub(super) fn detach(pins: &Pins, attachment: &Attachment, hook: Hook) -> Result<(), Source> {
    let filters = Filters::open()?;
    let Attachment { ifindex, program } = *attachment;
    filters.remove(ifindex, hook, program)?;
    remove_pin(&pins.link(ifindex, program))?;
    if note(pins, ifindex).exists() {
        let mut left = filters.list(ifindex, Hook::Ingress)?;
        left.extend(filters.list(ifindex, Hook::Egress)?);
        if left.is_empty() {
            filters.remove_clsact(ifindex)?;
            remove_pin(&note(pins, ifindex))?;
        }
    }
    Ok(())
}

fn remove_pin(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DatapathError::Io { action: "remove", path: path.to_path_buf(), source: error })
        }
        _ => Ok(()),
    }
}

/// Whether there is a filter with a program of this name on a device.
pub(super) fn is_attached(program: &str, ifindex: u32, hook: Hook) -> Result<bool, Source> {
    Ok(Filters::open()?.list(ifindex, hook)?.iter().any(|filter| filter.is_ours(program)))
}

/// The id of the program of this name on an interface's ingress.
pub(super) fn attached(program: &str, interface: &str) -> Result<Option<u32>, Source> {
    let filters = Filters::open()?.list(if_nametoindex(interface)?, Hook::Ingress)?;
    Ok(filters.iter().find(|filter| filter.is_ours(program)).map(|filter| filter.filter.program.unwrap_or(0)))
}
