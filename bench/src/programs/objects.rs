//! The compiled programs that are compared: this build's, another build's, and programs that do nothing.

use std::{fs, path::Path};

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{SchedClassifier, Xdp},
};
use overlay_bed::{bed::Bed, ipv6, world};
use overlay_common::map::{name, port_flag, program};
use overlay_user::datapath::{OBJECT, pin::Pins};

use super::handle::Handle;

/// The benchmark's own programs.
static OWN: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/overlay-bench-ebpf.o"));

/// Everything loaded.
pub(super) struct Objects {
    pub(super) present: Bed,
    pub(super) baseline: Option<Bed>,
    pub(super) own: Ebpf,
}

/// One of the objects that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Present,
    Baseline,
}

impl Objects {
    /// Loads all in the calling thread's network namespace.
    pub(super) fn load(pins: &Pins, baseline: Option<&Path>) -> Result<Self> {
        let mut present = bed(pins, OBJECT).context("this build's programs")?;
        // The kernel runs XDP programs for an interface that has one only.
        present.attach_xdp()?;
        let baseline = baseline.map(|file| load_baseline(pins, file)).transpose()?;
        Ok(Self { own: own(pins)?, present, baseline })
    }

    pub(super) fn which(&self) -> Vec<Which> {
        let baseline = self.baseline.as_ref().map(|_| Which::Baseline);
        std::iter::once(Which::Present).chain(baseline).collect()
    }

    /// One of the objects, with its maps.
    pub(super) fn bed(&mut self, which: Which) -> Result<&mut Bed> {
        match which {
            Which::Present => Ok(&mut self.present),
            Which::Baseline => self.baseline.as_mut().context("there is no baseline"),
        }
    }

    /// A program of one of the objects.
    pub(super) fn program(&mut self, which: Which, name: &str) -> Result<Handle<'_>> {
        let bed = self.bed(which)?;
        match name {
            program::UPLINK_DECAP => Ok(Handle::Xdp(bed.programs.xdp(&bed.pins)?)),
            _ => Ok(Handle::Tc(bed.programs.get(name)?)),
        }
    }

    /// The program that does nothing, of the same kind as `program`.
    pub(super) fn empty(&mut self, program: &str) -> Result<Handle<'_>> {
        match program {
            program::UPLINK_DECAP => {
                let xdp: &mut Xdp = own_program(&mut self.own, "empty_xdp")?.try_into()?;
                Ok(Handle::Xdp(xdp))
            }
            _ => Ok(Handle::Tc(self.empty_tc()?)),
        }
    }

    /// The program of the traffic-control hooks that does nothing.
    pub(super) fn empty_tc(&mut self) -> Result<&mut SchedClassifier> {
        Ok(own_program(&mut self.own, "empty")?.try_into()?)
    }
}

impl Objects {
    /// A tc program of the benchmark's own, loaded on first use.
    pub(super) fn own(&mut self, name: &str) -> Result<Handle<'_>> {
        let program: &mut SchedClassifier = own_program(&mut self.own, name)?.try_into()?;
        if program.fd().is_err() {
            program.load()?;
        }
        Ok(Handle::Tc(program))
    }

    /// A map of the benchmark's own.
    pub(super) fn own_map(&mut self, name: &str) -> Result<Map> {
        self.own.take_map(name).with_context(|| format!("the benchmark's object has no map {name}"))
    }
}

fn own_program<'a>(own: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::programs::Program> {
    own.program_mut(name).ok_or_else(|| anyhow!("the benchmark's object has no program {name}"))
}

/// Loads an object and fills its maps: both versions of IP, and ports between which packets may pass.
fn bed(pins: &Pins, object: &[u8]) -> Result<Bed> {
    let mut bed = Bed::load(pins, object)?;
    ipv6::world::fill(&mut bed.maps)?;
    for ifindex in [world::dev::PORT, world::dev::OTHER_PORT] {
        bed.maps.put_port(ifindex, ipv6::world::port6(port_flag::PEER | port_flag::LOCAL))?;
    }
    Ok(bed)
}

fn load_baseline(pins: &Pins, file: &Path) -> Result<Bed> {
    let what = || format!("the baseline {}", file.display());
    let object = fs::read(file).with_context(what)?;
    let pins = Pins::new(&pins.root().join("baseline"));
    bed(&pins, &object).with_context(what).context(
        "a baseline is the overlay-ebpf object of a build whose maps have the sizes that this one's have",
    )
}

fn own(pins: &Pins) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for map in name::ALL {
        loader.map_pin_path(map, pins.map(map));
    }
    let mut ebpf = loader.load(OWN).context("the benchmark's own programs")?;
    let tc: &mut SchedClassifier = own_program(&mut ebpf, "empty")?.try_into()?;
    tc.load()?;
    let xdp: &mut Xdp = own_program(&mut ebpf, "empty_xdp")?.try_into()?;
    xdp.load()?;
    Ok(ebpf)
}
