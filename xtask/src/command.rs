//! Runs other programs: shows the command line, and says which one failed and how.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

/// Administrators' directories, which a plain user's `PATH` on Debian leaves out.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Runs a command with its output shown, after a line that shows the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", shown(command));
    let status = command
        .status()
        .map_err(|error| anyhow!("cannot start `{}`: {error}", command.get_program().display()))?;
    ensure!(status.success(), "`{}` failed: {status}", shown(command));
    Ok(())
}

/// The command as one would type it; for people, so nothing is quoted that needs no quotes.
pub(crate) fn shown(command: &Command) -> String {
    let word = |word: &OsStr| {
        let word = word.to_string_lossy();
        if word.contains(char::is_whitespace) { format!("'{word}'") } else { word.into_owned() }
    };
    // Cargo comes as an absolute path of its toolchain, which tells nobody anything.
    let program = Path::new(command.get_program());
    let program = if program.ends_with("cargo") { OsStr::new("cargo") } else { program.as_os_str() };
    std::iter::once(program).chain(command.get_args()).map(word).collect::<Vec<_>>().join(" ")
}

/// The cargo that runs this program, at the workspace's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace());
    command
}

/// Builds overlayd and overlayctl in release, under `target`.
pub(crate) fn build_binaries(target: &Path) -> Result<()> {
    let build = ["build", "--release", "--package", "overlay-user", "--bins"];
    run(cargo(&build).env("CARGO_TARGET_DIR", target))
}

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// Cargo's target directory, from `CARGO_TARGET_DIR`, cargo's config or the default, made absolute.
pub(crate) fn target_dir() -> Result<PathBuf> {
    // A relative CARGO_TARGET_DIR counts from the caller's directory, so cargo must be asked from there.
    ask_target_dir(metadata().current_dir(env::current_dir()?))
}

fn metadata() -> Command {
    let mut command = cargo(&["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]);
    command.arg(workspace().join("Cargo.toml"));
    command
}

fn ask_target_dir(metadata: &mut Command) -> Result<PathBuf> {
    let output = metadata.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`{}` failed: {}", shown(metadata), String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
    let directory =
        metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?;
    Ok(directory.into())
}

/// A program on `PATH` or in the administrators' directories.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    find_in(env::split_paths(&env::var_os("PATH").unwrap_or_default()), program)
}

fn find_in(path: impl Iterator<Item = PathBuf>, program: &str) -> Option<PathBuf> {
    path.chain(SBIN.map(PathBuf::from)).map(|directory| directory.join(program)).find(|file| executable(file))
}

fn executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A command that runs as root: as it is for root, through sudo for others.
pub(crate) fn as_root(program: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let Some(sudo) = find("sudo") else { bail!("`{program}` needs root: run as root, or install sudo") };
    let mut command = Command::new(sudo);
    command.arg(program);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sbin_counts_even_where_path_leaves_it_out() {
        // A program of util-linux in sbin, on every Linux this runs on.
        assert!(find_in(std::iter::empty(), "losetup").is_some());
        assert_eq!(find_in(std::iter::empty(), "no-such-program-anywhere"), None);
    }

    #[test]
    fn only_what_can_be_run_is_a_program() {
        let etc = || std::iter::once(PathBuf::from("/etc"));
        assert_eq!(find_in(etc(), "passwd"), None);
        assert_eq!(find_in(etc(), "."), None);
    }

    #[test]
    fn shows_what_one_would_type() {
        let mut command = Command::new("/toolchain/bin/cargo");
        command.args(["test", "two words"]);
        assert_eq!(shown(&command), "cargo test 'two words'");
    }

    #[test]
    fn a_failure_names_the_command_and_its_status() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c 'exit 3'` failed: exit status: 3");
        let error = run(&mut Command::new("no-such-program-anywhere")).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot start `no-such-program-anywhere`: No such file"),
            "{error}"
        );
    }

    #[test]
    fn target_dir_is_the_environments_counted_from_the_callers_directory() {
        let ask =
            |variable: &str| ask_target_dir(metadata().env("CARGO_TARGET_DIR", variable).current_dir("/tmp"));
        assert_eq!(ask("/some where").unwrap(), Path::new("/some where"));
        assert_eq!(ask("below").unwrap(), Path::new("/tmp/below"));
    }
}
