//! The one recipe that compiles the eBPF object, for overlay-user's build script and `cargo xtask`.
//!
//! It needs a rustc that can produce code for `bpfel-unknown-none`, and bpf-linker, which links the
//! crate into one object with BTF. [`Toolchain::find`] looks for both; [`Toolchain::build`] compiles.

mod environment;
mod layout;
mod toolchain;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use layout::{object, target_dir, target_root_of};
pub use toolchain::{Compiler, Missing, NIGHTLY, Toolchain, find_linker};

/// The target triple of the programs: little-endian BPF, like every host overlayd supports.
pub const TARGET: &str = "bpfel-unknown-none";

/// The instruction set (every kernel since 4.14 has it). With v3's 32-bit registers LLVM 22 stores some of which nothing
/// was ever put into, which the verifier refuses.
const TARGET_CPU: &str = "-Ctarget-cpu=v2";

/// The workspace package with overlayd's programs.
pub const PACKAGE: &str = "overlay-ebpf";

/// What to compile, where, and for which host.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'a> {
    /// The root of the workspace.
    pub workspace: &'a Path,
    /// The package with the programs; the object has its name.
    pub package: &'a str,
    /// A target directory that no cargo waiting for this build holds the lock of: see [`target_dir`].
    pub target_dir: &'a Path,
    /// The architecture of the host that loads the object, as in `cfg(target_arch)`.
    pub host_arch: &'a str,
}

/// Why the object could not be built; cargo itself has said the details on stderr.
#[derive(Debug)]
pub enum BuildError {
    /// Cargo could not be started.
    Start(OsString, std::io::Error),
    /// Cargo ran, and the programs do not compile or link.
    Failed(String, std::process::ExitStatus),
    /// Cargo succeeded, and the object is not where it should be.
    NoObject(PathBuf),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(cargo, error) => write!(f, "cannot start {}: {error}", cargo.display()),
            Self::Failed(package, status) => {
                write!(f, "the eBPF programs ({package}) do not build: cargo ended with {status}")
            }
            Self::NoObject(path) => write!(f, "cargo built the eBPF programs but left no {}", path.display()),
        }
    }
}

impl std::error::Error for BuildError {}

impl Toolchain {
    /// The cargo command that builds the programs.
    pub fn command(&self, recipe: &Recipe<'_>) -> Command {
        let mut command = Command::new(self.compiler.cargo());
        environment::scrub(&mut command, std::env::vars_os().map(|(name, _)| name));
        command
            .current_dir(recipe.workspace)
            .args(["build", "--release", "--package", recipe.package, "--target", TARGET, "--target-dir"])
            .arg(recipe.target_dir)
            // A `build.build-dir` in the user's config would lead back to the directory the outer cargo holds.
            .env("CARGO_BUILD_BUILD_DIR", recipe.target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags(recipe.host_arch))
            .env("RUSTC", self.compiler.rustc());
        match &self.compiler {
            // Debian's stable rustc ships core for BPF; aya-ebpf uses inline assembly, unstable there.
            Compiler::Debian { .. } => command.env("RUSTC_BOOTSTRAP", "1"),
            Compiler::Nightly { .. } => command.args(["-Z", "build-std=core"]),
        };
        command
    }

    /// Builds the programs and gives the path of the object. Compiler output goes to stderr as it comes.
    pub fn build(&self, recipe: &Recipe<'_>) -> Result<PathBuf, BuildError> {
        let mut command = self.command(recipe);
        let status = command
            .status()
            .map_err(|error| BuildError::Start(command.get_program().to_os_string(), error))?;
        if !status.success() {
            return Err(BuildError::Failed(recipe.package.to_owned(), status));
        }
        let object = object(recipe.target_dir, recipe.package);
        if object.is_file() { Ok(object) } else { Err(BuildError::NoObject(object)) }
    }

    /// Encoded (0x1f between flags), so that the linker's path may contain spaces.
    fn rustflags(&self, host_arch: &str) -> OsString {
        let mut flags = OsString::from("-Clinker=");
        flags.push(&self.linker);
        // aya-ebpf reads the host's pt_regs layout from this cfg; all riscv64 flavours share one.
        let host_arch = if host_arch.starts_with("riscv64") { "riscv64" } else { host_arch };
        let host_arch = format!("--cfg=bpf_target_arch=\"{host_arch}\"");
        for flag in ["-Cdebuginfo=2", "-Clink-arg=--btf", TARGET_CPU, &host_arch] {
            flags.push("\u{1f}");
            flags.push(flag);
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment_of(command: &Command, name: &str) -> Option<OsString> {
        command.get_envs().find(|(key, _)| *key == name)?.1.map(OsString::from)
    }

    fn recipe() -> Recipe<'static> {
        Recipe {
            workspace: Path::new("/ws"),
            package: PACKAGE,
            target_dir: Path::new("/t/ebpf"),
            host_arch: "x86_64",
        }
    }

    #[test]
    fn debian_recipe_uses_its_rustc_and_bootstrap() {
        let compiler = Compiler::Debian { rustc: "/usr/bin/rustc".into() };
        let command = Toolchain { compiler, linker: "/a b/bpf-linker".into() }.command(&recipe());
        assert_eq!(environment_of(&command, "RUSTC").unwrap(), "/usr/bin/rustc");
        assert_eq!(environment_of(&command, "RUSTC_BOOTSTRAP").unwrap(), "1");
        assert_eq!(
            environment_of(&command, "CARGO_ENCODED_RUSTFLAGS").unwrap(),
            "-Clinker=/a b/bpf-linker\u{1f}-Cdebuginfo=2\u{1f}-Clink-arg=--btf\u{1f}-Ctarget-cpu=v2\u{1f}--cfg=bpf_target_arch=\"x86_64\""
        );
        assert!(command.get_args().all(|arg| arg != "build-std=core"));
    }

    #[test]
    fn nightly_recipe_builds_core_with_its_own_cargo() {
        let command =
            Toolchain { compiler: Compiler::Nightly { root: "/n".into() }, linker: "/bpf-linker".into() }
                .command(&recipe());
        assert_eq!(command.get_program(), "/n/bin/cargo");
        assert_eq!(environment_of(&command, "RUSTC").unwrap(), "/n/bin/rustc");
        assert!(command.get_args().any(|arg| arg == "build-std=core"));
        assert_eq!(environment_of(&command, "RUSTC_BOOTSTRAP"), None);
    }

    #[test]
    fn riscv_flavours_share_one_layout() {
        let toolchain =
            Toolchain { compiler: Compiler::Nightly { root: "/n".into() }, linker: "/bpf-linker".into() };
        let flags = toolchain.rustflags("riscv64gc");
        assert!(flags.to_string_lossy().ends_with("bpf_target_arch=\"riscv64\""));
    }
}
