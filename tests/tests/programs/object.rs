//! The object holds everything under the names that userspace calls it by.

use aya::{
    EbpfLoader,
    programs::{Program, SchedClassifier, Xdp},
};
use harness::Scope;
use overlay_common::map::{name, program};
use overlay_user::datapath::{OBJECT, load::Programs, map::Maps, pin::Pins};

#[test]
fn every_name_is_in_the_object() {
    let mut ebpf = EbpfLoader::new().load(OBJECT).unwrap();
    for name in name::ALL {
        assert!(ebpf.map(name).is_some(), "map {name}");
    }
    for name in program::TCX {
        let program: Result<&mut SchedClassifier, _> = ebpf.program_mut(name).unwrap().try_into();
        assert!(program.is_ok(), "program {name}");
    }
    let xdp: Result<&mut Xdp, _> = ebpf.program_mut(program::UPLINK_DECAP).unwrap().try_into();
    assert!(xdp.is_ok());
    // And nothing that userspace has no name for; `.rodata` and its like are the compiler's.
    let maps = ebpf.maps().filter(|(name, _)| !name.starts_with('.'));
    assert!(maps.into_iter().all(|(name, _)| name::ALL.contains(&name)));
    let programs: Vec<(&str, &Program)> = ebpf.programs().collect();
    assert!(programs.iter().all(|(name, _)| program::ALL.contains(name)), "{programs:?}");
}

#[test]
fn maps_are_adopted_and_programs_replaced_by_a_second_load() {
    let scope = Scope::unique().unwrap();
    let pins = Pins::new(&scope.pin_dir("object"));
    pins.prepare().unwrap();
    let mut first = Programs::load(&pins).unwrap();
    let id = first.get(program::UPLINK_INGRESS).unwrap().info().unwrap().id();
    Maps::open(&pins).unwrap().put_listen_port(4790, 1).unwrap();
    drop(first);
    let mut second = Programs::load(&pins).unwrap();
    assert_ne!(second.get(program::UPLINK_INGRESS).unwrap().info().unwrap().id(), id);
    assert_eq!(Maps::open(&pins).unwrap().listen_ports().unwrap(), [(4790, 1)]);
    pins.remove().unwrap();
    assert!(!pins.root().exists());
}
