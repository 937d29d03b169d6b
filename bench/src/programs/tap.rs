//! Where real packets come in, for programs that no test run shows as they are: its packets always have an Ethernet
//! header, and never a tunnel key. A tap is a tun device with `uplink_l3` behind it, and, where the kernel is to take
//! the outer headers off, its VXLAN device with `tunnel_ingress` behind that. On the hook that is measured the empty
//! program comes first.

use anyhow::{Context, Result, ensure};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions};
use harness::process::Cmd;
use nix::net::if_::if_nametoindex;
use overlay_bed::{
    ipv6::world::UNDERLAY6,
    world::{LISTEN_PORT, PORT_NUMBER, UNDERLAY, VTEP_MAC},
};
use overlay_common::{
    Encap,
    map::{
        TunnelDevice, Uplink,
        program::{TUNNEL_INGRESS, UPLINK_L3},
    },
};

use super::{
    objects::{Objects, Which},
    tun::Tun,
};

/// One object's way in to one program.
pub(super) struct Tap {
    which: Which,
    program: &'static str,
    tun: Tun,
}

/// What a batch of real packets cost.
pub(super) struct Batch {
    pub(super) empty: f64,
    pub(super) program: f64,
}

fn ip(arguments: &str) -> Result<()> {
    Cmd::new("ip").args(arguments.split(' ')).check().map(drop)
}

fn attach(program: &mut SchedClassifier, device: &str) -> Result<()> {
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let attached = program.attach_with_options(device, TcAttachType::Ingress, first);
    attached.with_context(|| format!("cannot attach a program to {device}"))?;
    Ok(())
}

impl Tap {
    /// The UDP port of an object's tunnels: a port has one VXLAN device.
    pub(super) const fn port(which: Which) -> u16 {
        match which {
            Which::Present => PORT_NUMBER,
            Which::Baseline => LISTEN_PORT,
        }
    }

    /// A device of `uplink_l3`, with the empty program in front.
    fn l3(objects: &mut Objects, which: Which) -> Result<Self> {
        let tap = Self::open(objects, which, UPLINK_L3)?;
        attach(objects.empty_tc()?, &tap.device())?;
        Ok(tap)
    }

    /// A device of `uplink_l3`, and a VXLAN device with `tunnel_ingress`, with the empty program in front.
    fn tunnel(objects: &mut Objects, which: Which) -> Result<Self> {
        let tap = Self::open(objects, which, TUNNEL_INGRESS)?;
        let (device, port) = (format!("vx-{}", tap.device()), Self::port(which));
        let mac = VTEP_MAC.map(|byte| format!("{byte:02x}")).join(":");
        ip(&format!("link add {device} address {mac} type vxlan external dstport {port} nolearning"))?;
        ip(&format!("link set {device} addrgenmode none"))?;
        let bed = objects.bed(which)?;
        attach(bed.programs.get(TUNNEL_INGRESS)?, &device)?;
        let ifindex = if_nametoindex(device.as_str())?;
        bed.maps.put_tunnel_device(port.into(), TunnelDevice { ifindex, flags: 0 })?;
        if port != PORT_NUMBER {
            bed.maps.put_listen_port(port, Encap::Vxlan as u32)?;
        }
        attach(objects.empty_tc()?, &device)?;
        ip(&format!("link set {device} up"))?;
        Ok(tap)
    }

    fn open(objects: &mut Objects, which: Which, program: &'static str) -> Result<Self> {
        let letter = match which {
            Which::Present => "p",
            Which::Baseline => "b",
        };
        let name = format!("{letter}{}", if program == UPLINK_L3 { "l3" } else { "tunnel" });
        let tap = Self { which, program, tun: Tun::open(&name)? };
        Cmd::new("sysctl").args(["-q", "-w", &format!("net.ipv4.conf.{name}.rp_filter=0")]).check()?;
        ip(&format!("link set {name} addrgenmode none"))?;
        ip(&format!("link set {name} up"))?;
        ip(&format!("addr add {}/32 dev {name}", std::net::Ipv4Addr::from(UNDERLAY)))?;
        let bed = objects.bed(which)?;
        bed.maps.put_uplink(tap.tun.ifindex, Uplink { v4: UNDERLAY, v6: UNDERLAY6 })?;
        attach(bed.programs.get(UPLINK_L3)?, &name)?;
        Ok(tap)
    }

    fn device(&self) -> String {
        self.tun.name.clone()
    }

    /// All that the objects need.
    pub(super) fn all(objects: &mut Objects) -> Result<Vec<Self>> {
        Cmd::new("sysctl").args(["-q", "-w", "net.ipv4.conf.all.rp_filter=0"]).check()?;
        let mut taps = Vec::new();
        for which in objects.which() {
            taps.push(Self::l3(objects, which)?);
            taps.push(Self::tunnel(objects, which)?);
        }
        Ok(taps)
    }

    /// Whether this is the way to a program of an object.
    pub(super) fn leads_to(&self, which: Which, program: &str) -> bool {
        self.which == which && self.program == program
    }

    /// Lets so many of a packet in. `None` where the programs ran more or less often than that.
    pub(super) fn batch(&self, objects: &mut Objects, packet: &[u8], runs: u64) -> Result<Option<Batch>> {
        let count = |objects: &mut Objects| -> Result<_> {
            Ok((objects.empty(self.program)?.count()?, objects.program(self.which, self.program)?.count()?))
        };
        let before = count(objects)?;
        for _ in 0..runs {
            self.tun.receive(packet)?;
        }
        let after = count(objects)?;
        let (empty, program) = (after.0.since(before.0, runs), after.1.since(before.1, runs));
        Ok(empty.zip(program).map(|(empty, program)| Batch { empty, program }))
    }

    /// Sees whether a packet reaches the program and is delivered.
    pub(super) fn check(&self, objects: &mut Objects, packet: &[u8]) -> Result<()> {
        let delivered = |objects: &mut Objects| -> Result<_> { Ok(objects.bed(self.which)?.totals()) };
        let before = delivered(objects)?;
        let batch = self.batch(objects, packet, 1)?;
        let after = delivered(objects)?;
        ensure!(
            batch.is_some() && (after.0, after.1) == (before.0, before.1 + 1),
            "{}: a packet through {} is not delivered ({} drops, {} delivered)",
            self.program,
            self.device(),
            after.0 - before.0,
            after.1 - before.1,
        );
        Ok(())
    }
}
