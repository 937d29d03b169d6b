//! Compiles the eBPF programs and leaves the object in `OUT_DIR` for the crate to embed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use ebpf_build::{Recipe, Toolchain};

/// The object's name in `OUT_DIR`.
const OBJECT: &str = "overlay-ebpf.o";

fn main() -> ExitCode {
    // Not `env!`: a target directory that is copied to another worktree brings this program along.
    let workspace = match variable("CARGO_MANIFEST_DIR") {
        Ok(directory) => Path::new(&directory).join(".."),
        Err(missing) => return say(&missing, ExitCode::FAILURE),
    };
    watch(&workspace);
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(missing) => return say(&missing, ExitCode::SUCCESS),
    };
    println!("cargo::rerun-if-changed={}", toolchain.linker.display());
    println!("cargo::rerun-if-changed={}", toolchain.compiler.rustc().display());

    match embed(&toolchain, &workspace) {
        Ok(()) => ExitCode::SUCCESS,
        // A failure's exit code makes cargo show stderr: what the compiler said of the programs.
        Err(error) => say(&error, ExitCode::FAILURE),
    }
}

/// Cargo prints the line and fails the build, whatever the exit code.
fn say(error: &dyn std::fmt::Display, code: ExitCode) -> ExitCode {
    println!("cargo::error={error}");
    code
}

fn embed(toolchain: &Toolchain, workspace: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let target_root =
        ebpf_build::target_root_of(&out_dir, &variable("TARGET")?).unwrap_or_else(|| out_dir.clone());
    let recipe = Recipe {
        workspace,
        package: ebpf_build::PACKAGE,
        target_dir: &ebpf_build::target_dir(&target_root),
        host_arch: &variable("CARGO_CFG_TARGET_ARCH")?,
    };
    let object = toolchain.build(&recipe)?;
    fs::copy(&object, out_dir.join(OBJECT))
        .map_err(|error| io::Error::other(format!("cannot copy {}: {error}", object.display())))?;
    Ok(())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}, which cargo sets for build scripts: {error}"))
}

/// Everything the object is made of.
fn watch(workspace: &Path) {
    for path in [
        "overlay-ebpf/src",
        "overlay-ebpf/Cargo.toml",
        "overlay-common/src",
        "overlay-common/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
}
