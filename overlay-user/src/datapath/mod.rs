//! The kernel's half: the eBPF object, its pins, its maps and its attachments.

mod again;
pub mod attach;
mod clsact;
pub mod held;
pub mod load;
pub mod map;
pub mod others;
pub mod pin;
pub mod takeover;
pub mod xdp;

/// The eBPF object file that the build script compiled.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/overlay-ebpf.o"));

/// What the data path is changed with.
pub struct Tools<'a> {
    /// The programs.
    pub programs: &'a mut load::Programs,
    /// The maps.
    pub maps: &'a mut map::Maps,
    /// The pins.
    pub pins: &'a pin::Pins,
    /// The kernel's links.
    pub netlink: &'a crate::netlink::Netlink,
}

impl Tools<'_> {
    /// The same, for a while.
    pub fn reborrow(&mut self) -> Tools<'_> {
        Tools { programs: self.programs, maps: self.maps, pins: self.pins, netlink: self.netlink }
    }
}

/// Why the kernel's half could not be worked on. The text says what and where; the cause, if any, why.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The pin directory cannot be used.
    #[error("{0}")]
    Pin(String),
    /// A system call of the filesystem under the pin directory failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The programs could not be loaded.
    #[error("cannot load the eBPF {what}")]
    Load {
        /// The object, or the program's name.
        what: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A map could not be opened, read or written.
    #[error("cannot {action} map {map}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// The map's name.
        map: &'static str,
        /// Why not.
        source: aya::maps::MapError,
    },
    /// A map's entries cannot be taken over from the layout of another build.
    #[error(
        "map {map} has another form than the data path that is pinned: end that with `overlayd detach`, then start this build"
    )]
    Layout {
        /// The map's name.
        map: &'static str,
    },
    /// A program could not be detached.
    #[error("cannot detach {program} from device {ifindex}")]
    Detach {
        /// The program's name.
        program: &'static str,
        /// The interface's index.
        ifindex: u32,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A program could not be attached.
    #[error("cannot attach {program} to {interface}")]
    Attach {
        /// The program's name.
        program: &'static str,
        /// The interface's name.
        interface: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
