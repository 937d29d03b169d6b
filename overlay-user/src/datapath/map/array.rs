//! The arrays.

use aya::maps::{IterableMap, MapError, PerCpuValues};
use overlay_common::{
    DropReason,
    map::{Direction, MAX_NOTES, Node, Note, Sampling, Status, Traffic, Tunnel, name},
};

use super::{Maps, Wire, batch};
use crate::{datapath::DatapathError, status};

impl Maps {
    /// The tunnels in use, by id.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn tunnels(&self) -> Result<Vec<(u32, Tunnel)>, DatapathError> {
        let mut tunnels = Vec::new();
        self.each_tunnel(|id, tunnel| tunnels.push((id, tunnel)))?;
        Ok(tunnels)
    }

    /// Shows the tunnels in use, by id.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn each_tunnel(&self, mut show: impl FnMut(u32, Tunnel)) -> Result<(), DatapathError> {
        let error = |source| DatapathError::Map { action: "read", map: name::TUNNELS, source };
        let mut show_used = |id: u32, Wire(tunnel): Wire<Tunnel>| {
            if tunnel.template_len != 0 {
                show(id, tunnel);
            }
        };
        if batch::each(self.tunnels.map(), &mut show_used).map_err(error)? {
            return Ok(());
        }
        for (id, tunnel) in (0..).zip(self.tunnels.iter()) {
            show_used(id, tunnel.map_err(error)?);
        }
        Ok(())
    }

    /// The tunnel with an id; `None` where that is free.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn tunnel(&self, id: u32) -> Result<Option<Tunnel>, DatapathError> {
        let result = self.tunnels.get(&id, 0);
        let Wire(tunnel) =
            result.map_err(|source| DatapathError::Map { action: "read", map: name::TUNNELS, source })?;
        Ok(Some(tunnel).filter(|tunnel| tunnel.template_len != 0))
    }

    /// Writes a tunnel. The id must not be in use: see [`Tunnel`].
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn put_tunnel(&mut self, id: u32, tunnel: Tunnel) -> Result<(), DatapathError> {
        let result = self.tunnels.set(id, Wire(tunnel), 0);
        self.changed(result).map_err(|source| DatapathError::Map {
            action: "write",
            map: name::TUNNELS,
            source,
        })
    }

    /// What the programs know of this host.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn node(&self) -> Result<Node, DatapathError> {
        let result = self.node.get(&0, 0);
        result.map(|Wire(node)| node).map_err(|source| DatapathError::Map {
            action: "read",
            map: name::NODE,
            source,
        })
    }

    /// Tells the programs about this host.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn put_node(&mut self, node: Node) -> Result<(), DatapathError> {
        let result = self.node.set(0, Wire(node), 0);
        result.map_err(|source| DatapathError::Map { action: "write", map: name::NODE, source })
    }

    /// The daemon's last word on itself.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn status(&self) -> Result<Status, DatapathError> {
        let result = self.status.get(&0, 0);
        result.map(|Wire(status)| status).map_err(|source| DatapathError::Map {
            action: "read",
            map: name::STATUS,
            source,
        })
    }

    /// Replaces the daemon's word on itself.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn put_status(&mut self, status: Status) -> Result<(), DatapathError> {
        let result = self.status.set(0, Wire(status), 0);
        result.map_err(|source| DatapathError::Map { action: "write", map: name::STATUS, source })
    }

    /// A peer's traffic in one direction, all CPUs together.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn traffic(&self, peer: u32, direction: Direction) -> Result<Traffic, DatapathError> {
        let values = self.counters.get(&Traffic::index(peer, direction), 0);
        let values =
            values.map_err(|source| DatapathError::Map { action: "read", map: name::COUNTERS, source })?;
        Ok(values.iter().fold(Traffic::default(), |sum, Wire(cpu)| Traffic {
            packets: sum.packets + cpu.packets,
            bytes: sum.bytes + cpu.bytes,
        }))
    }

    /// Sets a peer's traffic to zero, for an id that changes hands.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn reset_traffic(&mut self, peer: u32) -> Result<(), DatapathError> {
        let error = |source| DatapathError::Map { action: "write", map: name::COUNTERS, source };
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| error(MapError::IoError(source)))?;
        for direction in [Direction::ToPeer, Direction::FromPeer] {
            let zeroes = PerCpuValues::try_from(vec![Wire(Traffic::default()); cpus])
                .map_err(|source| error(MapError::IoError(source)))?;
            self.counters.set(Traffic::index(peer, direction), zeroes, 0).map_err(error)?;
        }
        Ok(())
    }

    /// Packets dropped for a reason, all CPUs together.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn drops(&self, reason: DropReason) -> Result<u64, DatapathError> {
        let values = self.drops.get(&reason.number(), 0);
        let values =
            values.map_err(|source| DatapathError::Map { action: "read", map: name::DROPS, source })?;
        Ok(values.iter().sum())
    }

    /// What the operator should know.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn notes(&self) -> Result<Vec<String>, DatapathError> {
        let error = |source| DatapathError::Map { action: "read", map: name::NOTES, source };
        let mut notes = Vec::new();
        for index in 0..MAX_NOTES as u32 {
            let Wire(note) = self.notes.get(&index, 0).map_err(error)?;
            notes.push(status::text(&note.text));
        }
        notes.retain(|note| !note.is_empty());
        Ok(notes)
    }

    /// Replaces what the operator should know. What exceeds [`MAX_NOTES`] lines is left out.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn put_notes<'a>(&mut self, notes: impl Iterator<Item = &'a str>) -> Result<(), DatapathError> {
        let error = |source| DatapathError::Map { action: "write", map: name::NOTES, source };
        let lines = notes.chain(std::iter::repeat("")).take(MAX_NOTES);
        for (index, line) in (0..).zip(lines) {
            self.notes.set(index, Wire(Note { text: status::field(line) }), 0).map_err(error)?;
        }
        Ok(())
    }

    /// Has drops sampled until a moment of `CLOCK_MONOTONIC`, in nanoseconds.
    ///
    /// # Errors
    /// [`DatapathError::Map`].
    pub fn put_sampling(&mut self, sampling: Sampling) -> Result<(), DatapathError> {
        let result = self.sampling.set(0, Wire(sampling), 0);
        result.map_err(|source| DatapathError::Map { action: "write", map: name::SAMPLING, source })
    }
}
