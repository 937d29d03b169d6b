//! Finds a compiler for BPF and bpf-linker, or says in one line what is missing.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::TARGET;

/// The nightly (rustc 1.96, LLVM 22) used where Debian's rustc-web is not; it needs rust-src.
/// Its LLVM must not be newer than the one bpf-linker is built with.
pub const NIGHTLY: &str = "nightly-2026-04-01";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_RUSTLIB: &str = "/usr/lib/rustlib";

/// All that compiles and links the programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The rustc with core for BPF.
    pub compiler: Compiler,
    /// bpf-linker.
    pub linker: PathBuf,
}

/// A rustc that can build for [`TARGET`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// Debian's, whose package libstd-rust-web-dev-bpf holds a compiled core for BPF.
    Debian {
        /// The rustc itself.
        rustc: PathBuf,
    },
    /// The pinned nightly, which compiles core from rust-src.
    Nightly {
        /// The toolchain's directory under rustup's home.
        root: PathBuf,
    },
}

/// What keeps the programs from being compiled: one line, which names the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is bpf-linker, but no core for BPF.
    Compiler,
    /// There is a compiler, but no bpf-linker.
    Linker,
    /// There is neither.
    Both,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot compile the eBPF programs: ")?;
        if matches!(self, Self::Linker | Self::Both) {
            f.write_str("bpf-linker is not installed")?;
        }
        if matches!(self, Self::Both) {
            f.write_str(", and ")?;
        }
        if matches!(self, Self::Compiler | Self::Both) {
            write!(
                f,
                "there is no core for {TARGET} (Debian: rustc-web and libstd-rust-web-dev-bpf; \
                 elsewhere: {NIGHTLY} with rust-src)"
            )?;
        }
        f.write_str("; run `cargo xtask setup`")
    }
}

impl std::error::Error for Missing {}

impl Toolchain {
    /// Looks for the compiler and the linker on this machine.
    pub fn find() -> Result<Self, Missing> {
        match (Compiler::find(), find_linker()) {
            (Some(compiler), Some(linker)) => Ok(Self { compiler, linker }),
            (Some(_), None) => Err(Missing::Linker),
            (None, Some(_)) => Err(Missing::Compiler),
            (None, None) => Err(Missing::Both),
        }
    }
}

impl Compiler {
    /// Debian's rustc where it can build for BPF, else the pinned nightly where that is installed.
    pub fn find() -> Option<Self> {
        let rustup = env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(|| home(".rustup"));
        Self::debian(Path::new(DEBIAN_RUSTC), Path::new(DEBIAN_RUSTLIB))
            .or_else(|| Self::nightly(&rustup?.join("toolchains")))
    }

    fn debian(rustc: &Path, rustlib: &Path) -> Option<Self> {
        let has_core = entries(&rustlib.join(TARGET).join("lib"))
            .any(|name| name.to_string_lossy().starts_with("libcore-"));
        (has_core && rustc.is_file()).then(|| Self::Debian { rustc: rustc.to_path_buf() })
    }

    fn nightly(toolchains: &Path) -> Option<Self> {
        entries(toolchains)
            .filter(|name| name.to_string_lossy().starts_with(NIGHTLY))
            .map(|name| toolchains.join(name))
            .find(|root| root.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file())
            .map(|root| Self::Nightly { root })
    }

    /// The compiler's own executable.
    pub fn rustc(&self) -> PathBuf {
        match self {
            Self::Debian { rustc } => rustc.clone(),
            Self::Nightly { root } => root.join("bin/rustc"),
        }
    }

    /// The cargo to drive it with: `-Z build-std` needs the nightly's, Debian's rustc takes the one at hand.
    pub(crate) fn cargo(&self) -> OsString {
        match self {
            Self::Debian { .. } => env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            Self::Nightly { root } => root.join("bin/cargo").into_os_string(),
        }
    }
}

/// bpf-linker from `PATH`, else from where `cargo install` puts it, which need not be on `PATH`.
pub fn find_linker() -> Option<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| home(".cargo"));
    linker_in(env::var_os("PATH").as_deref(), cargo_home.as_deref())
}

fn linker_in(path: Option<&OsStr>, cargo_home: Option<&Path>) -> Option<PathBuf> {
    path.into_iter()
        .flat_map(env::split_paths)
        .chain(cargo_home.map(|home| home.join("bin")))
        // A relative entry would mean another file to the nested cargo, which runs in another directory.
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join("bpf-linker"))
        .find(|linker| linker.is_file())
}

fn home(below: &str) -> Option<PathBuf> {
    env::home_dir().map(|home| home.join(below))
}

fn entries(directory: &Path) -> impl Iterator<Item = OsString> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty directory of this test's own, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let path = env::temp_dir().join(format!("ebpf-build-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, path: &str) -> PathBuf {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn debian_needs_rustc_and_core_for_bpf() {
        let scratch = Scratch::new("debian");
        let (rustc, rustlib) = (scratch.file("bin/rustc"), scratch.0.join("rustlib"));
        assert_eq!(Compiler::debian(&rustc, &rustlib), None);
        scratch.file("rustlib/bpfel-unknown-none/lib/libcore-26cf2a22d7b31f71.rlib");
        assert_eq!(Compiler::debian(&rustc, &rustlib), Some(Compiler::Debian { rustc: rustc.clone() }));
        fs::remove_file(&rustc).unwrap();
        assert_eq!(Compiler::debian(&rustc, &rustlib), None);
    }

    #[test]
    fn nightly_must_be_the_pinned_one_with_rust_src() {
        let scratch = Scratch::new("nightly");
        let core = "lib/rustlib/src/rust/library/core/Cargo.toml";
        scratch.file(&format!("nightly-x86_64-unknown-linux-gnu/{core}"));
        let pinned = format!("{NIGHTLY}-x86_64-unknown-linux-gnu");
        scratch.file(&format!("{pinned}/bin/rustc"));
        assert_eq!(Compiler::nightly(&scratch.0), None);
        scratch.file(&format!("{pinned}/{core}"));
        assert_eq!(Compiler::nightly(&scratch.0), Some(Compiler::Nightly { root: scratch.0.join(pinned) }));
    }

    #[test]
    fn linker_is_found_on_path_first_and_in_cargo_home_too() {
        let scratch = Scratch::new("linker");
        let path = scratch.0.join("a");
        let home = scratch.0.join("home");
        let find = || linker_in(Some(path.as_os_str()), Some(&home));
        assert_eq!(find(), None);
        let in_home = scratch.file("home/bin/bpf-linker");
        assert_eq!(find(), Some(in_home));
        let on_path = scratch.file("a/bpf-linker");
        assert_eq!(find(), Some(on_path));
    }

    #[test]
    fn what_is_missing_is_one_line_that_names_setup() {
        for missing in [Missing::Compiler, Missing::Linker, Missing::Both] {
            let line = missing.to_string();
            assert!(!line.contains('\n') && line.ends_with("run `cargo xtask setup`"), "{line}");
        }
        assert!(Missing::Linker.to_string().contains("bpf-linker is not installed"));
        assert!(Missing::Compiler.to_string().contains("libstd-rust-web-dev-bpf"));
    }
}
