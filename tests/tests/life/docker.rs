//! A real Docker engine that is restarted under running containers.

use harness::Topology;
use harness::docker::OnHost;

use crate::bed::{Flow, is_well};

/// `live-restore`: the containers run on while dockerd is away.
#[test]
fn a_restart_of_docker_with_live_restore_loses_nothing() {
    let engine = |index, scope: &harness::Scope| -> Box<dyn harness::container::Engine> {
        Box::new(OnHost::new(index, scope).args(&["--live-restore"]))
    };
    let mut topology = Topology::builder().engine(engine).up().unwrap();
    let flow = Flow::start(&topology);
    for _ in 0..2 {
        topology.h_mut(1).docker_mut().restart().unwrap();
        flow.goes_on();
    }
    is_well(topology.h(1));
    flow.clean();
}
