//! Test runs of the XDP program: `struct xdp_md` (`include/uapi/linux/bpf.h`), the metadata in front of the packet,
//! and frames that go on into the stack.

use anyhow::{Result, anyhow};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions};
use overlay_user::datapath::xdp::attach;

use crate::{bed::Bed, world::dev};

/// `XDP_DROP`.
pub const DROP: u32 = 1;
/// `XDP_PASS`.
pub const PASS: u32 = 2;

/// More than any packet of these tests grows to.
const BUFFER: usize = 4096;

/// What the program made of a packet.
#[derive(Clone, Debug)]
pub struct Ran {
    pub verdict: u32,
    pub metadata: Vec<u8>,
    pub packet: Vec<u8>,
}

/// data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
pub fn context(metadata: usize, packet: usize) -> [u8; 24] {
    let mut bytes = [0; 24];
    let fields = [metadata as u32, (metadata + packet) as u32, 0, dev::UPLINK, 0, 0];
    for (to, field) in bytes.chunks_exact_mut(4).zip(fields) {
        to.copy_from_slice(&field.to_ne_bytes());
    }
    bytes
}

impl Bed {
    /// The program on the uplink, as it is attached: the kernel takes no interface without.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn attach_xdp(&mut self) -> Result<()> {
        if !self.xdp_attached {
            let attached = attach(&mut self.programs, &self.pins, dev::UPLINK, "up");
            attached.map_err(|refusal| anyhow!("no XDP program on the uplink: {refusal:?}"))?;
            self.xdp_attached = true;
        }
        Ok(())
    }

    /// Runs the XDP program once on a packet from the uplink with metadata in front.
    pub fn run_xdp(&mut self, metadata: &[u8], packet: &[u8]) -> Ran {
        self.attach_xdp().unwrap();
        let (input, ctx_in) = ([metadata, packet].concat(), context(metadata.len(), packet.len()));
        let (mut output, mut ctx_out) = (vec![0; BUFFER], ctx_in);
        let options = TestRunOptions {
            data_in: Some(&input),
            data_out: Some(&mut output),
            ctx_in: Some(&ctx_in),
            ctx_out: Some(&mut ctx_out),
            ..TestRunOptions::default()
        };
        let result = self.programs.xdp(&self.pins).unwrap().test_run(options);
        let result = result.unwrap_or_else(|e| panic!("{} bytes: {e:?}", packet.len()));
        output.truncate(result.data_size_out as usize);
        let data = u32::from_ne_bytes([ctx_out[0], ctx_out[1], ctx_out[2], ctx_out[3]]);
        let packet = output.split_off(data as usize);
        Ran { verdict: result.return_value, metadata: output, packet }
    }

    /// Runs the XDP program on a packet that goes on from there, to tcx and into the stack.
    pub fn run_live(&mut self, metadata: &[u8], packet: &[u8]) {
        self.attach_xdp().unwrap();
        let (input, ctx_in) = ([metadata, packet].concat(), context(metadata.len(), packet.len()));
        let options = TestRunOptions {
            data_in: Some(&input),
            ctx_in: Some(&ctx_in),
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::default()
        };
        self.programs.xdp(&self.pins).unwrap().test_run(options).unwrap();
    }
}
