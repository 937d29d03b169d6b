//! tcx links: attached once, pinned, and from then on only given new programs, so that no packet passes by. Where
//! the kernel has no tcx, filters take their place (`clsact.rs`).

use std::{fs, sync::OnceLock};

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
};
use nix::errno::Errno;
use overlay_common::map::program;
use tracing::debug;

use super::{
    DatapathError, clsact,
    load::Programs,
    others::query::tcx_programs,
    pin::{Pins, ReplaceError},
};
use crate::{local::Uplink, netlink::Hook};

/// A program on an interface: what is pinned as one link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// The interface's index.
    pub ifindex: u32,
    /// The program's name: one of [`program::TCX`].
    pub program: &'static str,
}

impl Attachment {
    /// The hook that a program belongs to.
    fn hook(&self) -> Hook {
        if self.program == program::BRIDGE_EGRESS { Hook::Egress } else { Hook::Ingress }
    }

    fn tcx_hook(&self) -> TcAttachType {
        match self.hook() {
            Hook::Ingress => TcAttachType::Ingress,
            Hook::Egress => TcAttachType::Egress,
        }
    }
}

/// Whether the kernel has tcx (6.6, unless it was built without), asked of it once.
pub fn has_tcx() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let refused = |error: &aya::programs::ProgramError| {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
            while let Some(error) = cause {
                if let Some(error) = error.downcast_ref::<std::io::Error>() {
                    return error.raw_os_error() == Some(Errno::EINVAL as i32);
                }
                cause = error.source();
            }
            false
        };
        // Every namespace has this interface.
        SchedClassifier::query_tcx("lo", TcAttachType::Ingress).err().is_none_or(|error| !refused(&error))
    })
}

/// The name of the tcx program that a pin is named after, if it is one of ours.
pub fn known_program(name: &str) -> Option<&'static str> {
    program::TCX.into_iter().find(|known| *known == name)
}

/// Attaches a program, or gives the link that is already pinned this build's program. Returns true where
/// a link was adopted.
///
/// # Errors
/// [`DatapathError::Attach`] with the kernel's reason.
pub fn attach(
    programs: &mut Programs,
    pins: &Pins,
    attachment: &Attachment,
    interface: &str,
) -> Result<bool, DatapathError> {
    let path = pins.link(attachment.ifindex, attachment.program);
    let classifier = programs.get(attachment.program)?;
    let error = |source| DatapathError::Attach {
        program: attachment.program,
        interface: interface.to_owned(),
        source,
    };
    if !has_tcx() {
        return clsact::attach(classifier, pins, attachment, attachment.hook()).map_err(error);
    }
    if let Ok(pinned) = PinnedLink::from_pin(&path) {
        let link = SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(|e| error(e.into()))?;
        match classifier.attach_to_link(link) {
            Ok(id) => {
                // The pin holds the link; our own reference is not needed.
                drop(classifier.take_link(id).map_err(|e| error(e.into()))?);
                return Ok(true);
            }
            // The interface that it belonged to is gone (ENOLINK): a pin of nothing.
            Err(reason) => debug!(interface, program = attachment.program, %reason, "replacing a dead link"),
        }
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = classifier
        .attach_with_options(interface, attachment.tcx_hook(), options)
        .map_err(|e| error(e.into()))?;
    let link = classifier.take_link(id).map_err(|e| error(e.into()))?;
    let link = FdLink::try_from(link).map_err(|e| error(e.into()))?;
    Pins::replace(&path, |path| link.pin(path).map(drop)).map_err(|reason| match reason {
        ReplaceError::Pin(e) => error(e.into()),
        ReplaceError::Io(e) => error(e.into()),
    })?;
    Ok(false)
}

/// The id of a program of overlayd's on an uplink that no pin of ours holds: somebody else's overlayd.
///
/// # Errors
/// [`DatapathError::Attach`] where the kernel does not tell.
pub fn attached_elsewhere(pins: &Pins, uplink: &Uplink) -> Result<Option<u32>, DatapathError> {
    if pins.link(uplink.index, uplink.program()).exists() {
        return Ok(None);
    }
    attached(uplink.program(), &uplink.name)
}

/// True where a program of this name is on an interface's ingress, whoever put it there.
///
/// # Errors
/// [`DatapathError::Attach`] where the kernel does not tell.
pub fn is_attached(program: &'static str, interface: &str) -> Result<bool, DatapathError> {
    Ok(attached(program, interface)?.is_some())
}

/// The id of the program of this name on an interface's ingress.
fn attached(program: &'static str, interface: &str) -> Result<Option<u32>, DatapathError> {
    let error = |source| DatapathError::Attach { program, interface: interface.to_owned(), source };
    if !has_tcx() {
        return clsact::attached(program, interface).map_err(error);
    }
    let (_, attached) =
        SchedClassifier::query_tcx(interface, TcAttachType::Ingress).map_err(|e| error(e.into()))?;
    Ok(attached.iter().find(|info| info.name_as_str() == Some(program)).map(aya::programs::ProgramInfo::id))
}

/// Whether a program of this build is where it was attached. Where the kernel does not tell, it is believed to be.
pub fn is_still_attached(programs: &mut Programs, attachment: &Attachment) -> bool {
    let Attachment { ifindex, program } = *attachment;
    if !has_tcx() {
        return clsact::is_attached(program, ifindex, attachment.hook()).unwrap_or(true);
    }
    let id = programs.get(program).ok().and_then(|program| program.info().ok()).map(|info| info.id());
    let there = tcx_programs(ifindex, attachment.hook());
    id.zip(there.ok()).is_none_or(|(id, there)| there.contains(&id))
}

/// Detaches a program: the pin is the link's last reference.
///
/// # Errors
/// [`DatapathError::Io`], [`DatapathError::Detach`].
pub fn detach(pins: &Pins, attachment: &Attachment) -> Result<(), DatapathError> {
    if !has_tcx() {
        return clsact::detach(pins, attachment, attachment.hook()).map_err(|source| DatapathError::Detach {
            program: attachment.program,
            ifindex: attachment.ifindex,
            source,
        });
    }
    let path = pins.link(attachment.ifindex, attachment.program);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DatapathError::Io { action: "remove", path, source: error })
        }
        _ => Ok(()),
    }
}

/// Detaches every program that is pinned.
///
/// # Errors
/// As [`detach`], for the first that cannot be.
pub fn detach_all(pins: &Pins) -> Result<(), DatapathError> {
    for (ifindex, name) in pins.pinned_links()? {
        if let Some(program) = known_program(&name) {
            detach(pins, &Attachment { ifindex, program })?;
        }
    }
    Ok(())
}
