//! What the project needs from the machine, how its presence is proved, and which packages bring it.

use std::path::Path;
use std::process::Command;

use super::Set;
use crate::{command, elf};

/// One thing that must be there.
#[derive(Debug)]
pub(super) struct Need {
    /// The smallest set that needs it.
    pub(super) set: Set,
    pub(super) proof: Proof,
    /// The Debian packages that bring it.
    pub(super) packages: &'static [&'static str],
}

/// What shows that a need is met, wherever the thing came from.
#[derive(Debug)]
pub(super) enum Proof {
    /// A program on `PATH` or in sbin.
    Program(&'static str),
    /// A file under the root directory, one of these.
    File(&'static [&'static str]),
    /// A busybox without a dynamic loader: containers have no libc of their own.
    StaticBusybox,
    /// A rustc that compiles for BPF.
    BpfCompiler,
}

const fn need(set: Set, proof: Proof, packages: &'static [&'static str]) -> Need {
    Need { set, proof, packages }
}

/// Everything but bpf-linker, which no package brings.
#[rustfmt::skip]
pub(super) const NEEDS: &[Need] = &[
    need(Set::Build, Proof::Program("cc"), &["gcc", "libc6-dev"]),
    need(Set::Build, Proof::BpfCompiler, &["rustc-web", "libstd-rust-web-dev-bpf"]),
    need(Set::Build, Proof::Program("protoc"), &["protobuf-compiler"]),
    need(Set::Build, Proof::File(&["/usr/include/google/protobuf/empty.proto",
        "/usr/local/include/google/protobuf/empty.proto"]), &["libprotobuf-dev"]),
    need(Set::Lab, Proof::Program("ip"), &["iproute2"]),
    need(Set::Lab, Proof::Program("bpftool"), &["bpftool"]),
    need(Set::Lab, Proof::Program("etcd"), &["etcd-server"]),
    need(Set::Lab, Proof::Program("etcdctl"), &["etcd-client"]),
    need(Set::Lab, Proof::Program("iperf3"), &["iperf3"]),
    need(Set::Lab, Proof::Program("ping"), &["iputils-ping"]),
    need(Set::Lab, Proof::Program("ethtool"), &["ethtool"]),
    need(Set::Lab, Proof::Program("nsenter"), &["util-linux"]),
    need(Set::Lab, Proof::Program("sysctl"), &["procps"]),
    need(Set::Docker, Proof::Program("iptables"), &["iptables"]),
    // /usr/bin/docker alone may be a client of an engine elsewhere: the engine is the proof.
    need(Set::Docker, Proof::Program("dockerd"), &["docker.io"]),
    // Since Debian 13 the client is a package of its own; before, apt does not know that package.
    need(Set::Docker, Proof::Program("docker"), &["docker-cli", "docker.io"]),
    need(Set::Docker, Proof::Program("containerd"), &["containerd"]),
    need(Set::Docker, Proof::Program("runc"), &["runc"]),
    need(Set::Docker, Proof::StaticBusybox, &["busybox-static"]),
    need(Set::Bench, Proof::Program("ovs-vswitchd"), &["openvswitch-switch"]),
    need(Set::Test, Proof::Program("curl"), &["curl"]),
    need(Set::Test, Proof::Program("nft"), &["nftables"]),
    need(Set::Test, Proof::Program("tcpdump"), &["tcpdump"]),
    need(Set::Test, Proof::Program("tshark"), &["tshark"]),
    need(Set::Test, Proof::Program("wg"), &["wireguard-tools"]),
    // The guest's kernel loads its modules with the host's modprobe. qemu is not installed: see vm/emulator.rs.
    need(Set::Vm, Proof::Program("modprobe"), &["kmod"]),
    need(Set::Vm, Proof::Program("xz"), &["xz-utils"]),
    need(Set::Vm, Proof::Program("zstd"), &["zstd"]),
    need(Set::Vm, Proof::Program("dpkg-deb"), &["dpkg"]),
];

/// What building bpf-linker takes, and nothing afterwards but libLLVM.
#[rustfmt::skip]
pub(super) const LINKER_NEEDS: &[Need] = &[
    need(Set::Build, Proof::File(&["/usr/lib/llvm-22/include/llvm-c/Core.h"]), &["llvm-22-dev"]),
    need(Set::Build, Proof::File(&["/usr/lib/llvm-22/lib/libPolly.a"]), &["libpolly-22-dev"]),
    need(Set::Build, Proof::File(&["/usr/include/zstd.h"]), &["libzstd-dev"]),
    need(Set::Build, Proof::File(&["/usr/include/zlib.h"]), &["zlib1g-dev"]),
];

/// The version that is built where there is none, and the oldest that will do: it goes with LLVM 22.
pub(super) const LINKER_VERSION: &str = "0.13.0";

/// What of a set is not there.
#[derive(Debug, Default)]
pub(super) struct Missing {
    pub(super) needs: Vec<&'static Need>,
    pub(super) linker: bool,
}

impl Missing {
    pub(super) fn of(set: Set) -> Self {
        Self::by(set, &Proof::holds, linker_works)
    }

    /// Pure but for the two probes. What builds the linker is asked for only where the linker is missing.
    fn by(set: Set, holds: &dyn Fn(&Proof) -> bool, linker_works: impl FnOnce() -> bool) -> Self {
        let linker = !linker_works();
        let builders = LINKER_NEEDS.iter().filter(|_| linker);
        let needs = NEEDS.iter().filter(|need| need.set <= set).chain(builders);
        Self { needs: needs.filter(|need| !holds(&need.proof)).collect(), linker }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.needs.is_empty() && !self.linker
    }

    /// The packages to install, each once.
    pub(super) fn packages(&self) -> Vec<&'static str> {
        let mut packages: Vec<&str> = Vec::new();
        for package in self.needs.iter().flat_map(|need| need.packages) {
            if !packages.contains(package) {
                packages.push(package);
            }
        }
        packages
    }
}

impl Proof {
    fn holds(&self) -> bool {
        match self {
            Self::Program(name) => command::find(name).is_some(),
            Self::File(paths) => paths.iter().any(|path| Path::new(path).is_file()),
            Self::StaticBusybox => command::find("busybox")
                .and_then(|path| std::fs::read(path).ok())
                .is_some_and(|file| elf::is_static(&file)),
            // The package may be there in a version from before the workspace's.
            Self::BpfCompiler => ebpf_build::Compiler::find()
                .is_some_and(|compiler| runs(&compiler.rustc(), env!("CARGO_PKG_RUST_VERSION"))),
        }
    }
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Program(name) => f.write_str(name),
            Self::File(paths) => f.write_str(paths.first().copied().unwrap_or_default()),
            Self::StaticBusybox => f.write_str("a static busybox"),
            Self::BpfCompiler => f.write_str("a rustc for BPF"),
        }
    }
}

/// It may not start (its libLLVM may have gone since it was built) or be too old for rustc's bitcode.
fn linker_works() -> bool {
    ebpf_build::find_linker().is_some_and(|linker| runs(&linker, LINKER_VERSION))
}

/// Whether a program tells its version, and that it is this one or a newer one.
fn runs(program: &Path, oldest: &str) -> bool {
    let Ok(output) = Command::new(program).arg("--version").output() else { return false };
    output.status.success() && new_enough(&String::from_utf8_lossy(&output.stdout), oldest)
}

/// `output` is `bpf-linker 0.13.0` or `rustc 1.96.0 (…)`.
fn new_enough(output: &str, oldest: &str) -> bool {
    let version = |text: &str| -> Option<Vec<u32>> {
        text.split(['-', '+']).next()?.split('.').map(|part| part.parse().ok()).collect()
    };
    let found = output.split_whitespace().nth(1).and_then(version);
    found.is_some_and(|found| Some(found) >= version(oldest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(set: Set, holds: impl Fn(&Proof) -> bool, linker: bool) -> Vec<&'static str> {
        Missing::by(set, &holds, || linker).packages()
    }

    #[test]
    fn nothing_is_installed_where_all_is_there() {
        let missing = Missing::by(Set::Test, &|_| true, || true);
        assert!(missing.is_empty() && missing.packages().is_empty());
    }

    #[test]
    fn a_bare_machine_gets_everything_once() {
        let packages = packages(Set::Test, |_| false, false);
        for package in
            ["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22-dev", "etcd-server", "docker.io", "tshark"]
        {
            assert_eq!(packages.iter().filter(|name| **name == package).count(), 1, "{package}");
        }
    }

    #[test]
    fn llvm_is_for_building_the_linker_only() {
        let with_linker = packages(Set::Build, |_| false, true);
        assert!(!with_linker.iter().any(|package| package.contains("22")), "{with_linker:?}");
        let without = packages(Set::Build, |proof| !matches!(proof, Proof::File(_)), false);
        assert_eq!(
            without,
            ["libprotobuf-dev", "llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"]
        );
    }

    #[test]
    fn a_set_asks_for_no_more_than_it_needs() {
        let build = packages(Set::Build, |_| false, true);
        assert!(!build.contains(&"docker.io") && !build.contains(&"etcd-server"), "{build:?}");
        let lab = packages(Set::Lab, |_| false, true);
        assert!(lab.contains(&"etcd-server") && !lab.contains(&"docker.io"), "{lab:?}");
        assert!(lab.contains(&"rustc-web"), "{lab:?}");
    }

    #[test]
    fn what_other_kernels_need_is_for_their_command_only() {
        let test = packages(Set::Test, |_| false, true);
        assert!(!test.contains(&"kmod") && packages(Set::Vm, |_| false, true).contains(&"kmod"), "{test:?}");
    }

    #[test]
    fn a_docker_client_does_not_prove_the_engine() {
        let only_client = |proof: &Proof| !matches!(proof, Proof::Program("dockerd"));
        assert_eq!(packages(Set::Docker, only_client, true), ["docker.io"]);
    }

    #[test]
    fn an_old_or_strange_version_does_not_count() {
        for good in ["bpf-linker 0.13.0", "bpf-linker 0.14.2 (LLVM 23)", "bpf-linker 1.0.0-rc.1+x"] {
            assert!(new_enough(good, LINKER_VERSION), "{good}");
        }
        for bad in ["bpf-linker 0.9.15", "bpf-linker 0.12.9", "", "bpf-linker", "bpf-linker x.y"] {
            assert!(!new_enough(bad, LINKER_VERSION), "{bad}");
        }
        assert!(new_enough("rustc 1.96.0 (ac68faa20 2026-05-25)", "1.95"));
        assert!(!new_enough("rustc 1.85.0", "1.95"));
    }
}
