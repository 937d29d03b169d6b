//! What a nested cargo must not inherit from the cargo that runs it.

use std::ffi::{OsStr, OsString};
use std::process::Command;

/// Kept of `CARGO_*`: where crates come from, how output looks, and the outer cargo's job slots.
const KEPT: &[&str] = &[
    "CARGO_HOME",
    "CARGO_MAKEFLAGS",
    "CARGO_BUILD_JOBS",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];

/// Set by cargo for build scripts and test runs, without a prefix of their own.
const BUILD_SCRIPT: &[&str] =
    &["DEBUG", "HOST", "NUM_JOBS", "OPT_LEVEL", "OUT_DIR", "PROFILE", "RUSTDOC", "RUSTFLAGS", "TARGET"];

/// Removes from `command` those of `names` that would change the build: the outer package's variables,
/// a profile that strips BTF, flags for the host, clippy or a compile cache in place of rustc.
pub(crate) fn scrub(command: &mut Command, names: impl Iterator<Item = OsString>) {
    for name in names.filter(|name| unwanted(name)) {
        command.env_remove(name);
    }
    // Empty beats unset: it also overrides a wrapper named in the user's cargo config.
    command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
}

fn unwanted(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let cargo = name.starts_with("CARGO_") && !KEPT.iter().any(|kept| keeps(kept, name));
    cargo || name.starts_with("RUSTC") || name.starts_with("DEP_") || BUILD_SCRIPT.contains(&name)
}

fn keeps(kept: &str, name: &str) -> bool {
    if kept.ends_with('_') { name.starts_with(kept) } else { name == kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_build_is_forgotten() {
        for name in [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_PKG_NAME",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_STRIP",
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER",
            "OUT_DIR",
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "TARGET",
        ] {
            assert!(unwanted(OsStr::new(name)), "{name} must not reach the nested cargo");
        }
    }

    #[test]
    fn the_users_settings_stay() {
        for name in [
            "CARGO",
            "CARGO_HOME",
            "CARGO_MAKEFLAGS",
            "CARGO_NET_OFFLINE",
            "CARGO_TERM_COLOR",
            "HOME",
            "PATH",
            "RUSTUP_HOME",
        ] {
            assert!(!unwanted(OsStr::new(name)), "{name} must reach the nested cargo");
        }
    }

    #[test]
    fn wrappers_are_switched_off_even_where_a_config_file_names_one() {
        let mut command = Command::new("cargo");
        scrub(&mut command, ["RUSTC_WRAPPER".into()].into_iter());
        let wrapper = command.get_envs().find(|(name, _)| *name == "RUSTC_WRAPPER");
        assert_eq!(wrapper, Some((OsStr::new("RUSTC_WRAPPER"), Some(OsStr::new("")))));
    }
}
