//! Compiles the benchmark's own eBPF programs and leaves the object in `OUT_DIR`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use ebpf_build::{Recipe, Toolchain};

const PACKAGE: &str = "overlay-bench-ebpf";

fn main() -> ExitCode {
    // Not `env!`: a target directory that is copied to another worktree brings this program along.
    let Ok(directory) = env::var("CARGO_MANIFEST_DIR") else {
        println!("cargo::error=cargo sets no CARGO_MANIFEST_DIR");
        return ExitCode::FAILURE;
    };
    let workspace = Path::new(&directory).join("..");
    let sources =
        ["bench/ebpf", "overlay-ebpf/src/maps.rs", "overlay-common/src", "Cargo.toml", "Cargo.lock"];
    for path in sources {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    match build(&workspace) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn build(workspace: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let target_root =
        ebpf_build::target_root_of(&out_dir, &env::var("TARGET")?).unwrap_or_else(|| out_dir.clone());
    let recipe = Recipe {
        workspace,
        package: PACKAGE,
        target_dir: &ebpf_build::target_dir(&target_root),
        host_arch: &env::var("CARGO_CFG_TARGET_ARCH")?,
    };
    let object = Toolchain::find()?.build(&recipe)?;
    fs::copy(object, out_dir.join("overlay-bench-ebpf.o"))?;
    Ok(())
}
