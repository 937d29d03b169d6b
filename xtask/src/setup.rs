//! `cargo xtask setup`: installs what is missing to build, run and test, and nothing else.

mod need;
mod packages;

use anyhow::{Result, bail};

use self::need::{LINKER_VERSION, Missing};
use crate::command;

/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// What a command needs; each set has everything of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Set {
    /// To compile the workspace, the eBPF programs too.
    Build,
    /// Hosts as network namespaces, etcd, traffic.
    Lab,
    /// Real Docker engines.
    Docker,
    /// What overlayd is compared with.
    Bench,
    /// Everything: captures too.
    Test,
    /// Other kernels, for `cargo xtask vm` alone.
    Vm,
}

pub(crate) fn run(_args: &Args) -> Result<()> {
    ensure(Set::Test)?;
    println!("all that overlayd needs to build, run and test is installed");
    Ok(())
}

/// Installs what of a set is missing. Silent, and a matter of milliseconds, where nothing is.
pub(crate) fn ensure(set: Set) -> Result<()> {
    let missing = Missing::of(set);
    if missing.is_empty() {
        return Ok(());
    }
    if !packages::has_apt() && !missing.needs.is_empty() {
        bail!("apt-get is not there to install what is missing; please install\n{}", by_hand(&missing));
    }
    if !missing.needs.is_empty() {
        packages::install(&missing.packages())?;
        let left = Missing { needs: Missing::of(set).needs, linker: false };
        if !left.needs.is_empty() {
            bail!("still missing after the packages were installed; please install\n{}", by_hand(&left));
        }
    }
    if missing.linker { install_linker() } else { Ok(()) }
}

fn install_linker() -> Result<()> {
    eprintln!("building bpf-linker: a minute or two");
    let mut cargo = command::cargo(&linker_arguments());
    // Flags and directories meant for the workspace do not concern it.
    for variable in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(variable);
    }
    command::run(cargo.env("LLVM_PREFIX", "/usr/lib/llvm-22"))?;
    if Missing::of(Set::Build).linker {
        bail!(
            "bpf-linker {LINKER_VERSION} was installed, but `bpf-linker --version` does not run: is an older one first on PATH?"
        );
    }
    Ok(())
}

/// `--force` replaces one that no longer starts, `--locked` takes the versions its authors tested.
fn linker_arguments() -> [&'static str; 9] {
    [
        "install",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--no-default-features",
        "--features",
        "llvm-22",
        "--locked",
        "--force",
    ]
}

/// What a person would have to install, one thing a line.
fn by_hand(missing: &Missing) -> String {
    let mut lines: Vec<String> = missing
        .needs
        .iter()
        .map(|need| format!("  {} (Debian: {})", need.proof, need.packages.join(" ")))
        .collect();
    if missing.needs.iter().any(|need| matches!(need.proof, need::Proof::BpfCompiler)) {
        let nightly = ebpf_build::NIGHTLY;
        lines.push(format!(
            "    or: rustup toolchain install {nightly} --profile minimal --component rust-src --no-self-update"
        ));
    }
    if missing.linker {
        lines.push(format!(
            "  bpf-linker: LLVM_PREFIX=/usr/lib/llvm-22 cargo {}",
            linker_arguments().join(" ")
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand_names_every_need_its_package_and_the_linker() {
        let text = by_hand(&Missing { needs: need::NEEDS.iter().collect(), linker: true });
        for part in
            ["dockerd (Debian: docker.io)", "tshark", "rust-src", "cargo install bpf-linker --version 0.13.0"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!by_hand(&Missing::default()).contains("bpf-linker"));
    }

    #[test]
    fn sets_grow() {
        assert!(
            [Set::Build, Set::Lab, Set::Docker, Set::Bench, Set::Test, Set::Vm].is_sorted_by(|a, b| a < b)
        );
    }
}
