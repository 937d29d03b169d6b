//! Which versions of what is compared are installed.

use anyhow::{Context, Result};
use harness::process::Cmd;

use super::bed::Bed;

/// The engines that run, as in `Docker 20.10.24`.
pub(super) fn docker(bed: &Bed) -> Result<String> {
    let version = bed.hosts[0].engine()?.docker(&["version", "-f", "{{.Server.Version}}"])?;
    Ok(format!("Docker {version}"))
}

/// The engine that is installed: its major version.
pub(super) fn docker_major() -> Result<u32> {
    let said = Cmd::new("dockerd").arg("--version").check()?.stdout;
    major(&said).with_context(|| format!("dockerd told no version: {said}"))
}

/// `Docker version 20.10.24+dfsg1, build 5d6db84` is of 20.
fn major(said: &str) -> Option<u32> {
    said.split_whitespace().nth(2)?.split('.').next()?.parse().ok()
}

/// The etcd that is installed, as in `etcd 3.4.23`.
pub(super) fn etcd() -> Result<String> {
    Ok(line("etcd")?.replace(" Version:", ""))
}

/// The first line that a program says about itself.
pub(super) fn line(program: &str) -> Result<String> {
    let said = Cmd::new(program).arg("--version").check()?.stdout;
    Ok(said.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn the_major_version_is_the_third_words_first_number() {
        assert_eq!(major("Docker version 20.10.24+dfsg1, build 5d6db84"), Some(20));
        assert_eq!(major("Docker version 28.0.1, build 1"), Some(28));
        assert_eq!(major("podman"), None);
    }
}
