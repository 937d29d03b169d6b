//! The apt step of setup: one script, run as root, and nothing else is.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// Asked by Debian's tools whether a service may start.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const LOCK: &str = "/run/lock/overlayd-setup.lock";
const SCRIPT: &str = include_str!("install.sh");

/// Whether this machine installs with apt.
pub(super) fn has_apt() -> bool {
    command::find("apt-get").is_some()
}

/// Installs packages. Those apt does not know are skipped with a line: what they prove is checked afterwards.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    // sudo drops the environment, so env brings it in behind it.
    let mut command = command::as_root("env")?;
    add_script(&mut command, Path::new(POLICY), Path::new(LOCK), packages);
    eprintln!("+ apt-get install --no-install-recommends {}", packages.join(" "));
    let status = command.status().context("cannot start the apt step")?;
    if !status.success() {
        bail!("installing packages failed ({status}): the lines above say why");
    }
    Ok(())
}

fn add_script(command: &mut Command, policy: &Path, lock: &Path, packages: &[&str]) {
    let variable = |name: &str, path: &Path| format!("{name}={}", path.display());
    command.arg(variable("POLICY", policy)).arg(variable("LOCK", lock));
    command.args(["sh", "-c", SCRIPT, "install.sh"]).args(packages);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    /// The script with an apt of the test's own, which notes what it is asked and what the policy is then.
    struct Bed(PathBuf);

    impl Bed {
        fn new(test: &str, apt_get: &str) -> Self {
            let root = std::env::temp_dir().join(format!("xtask-apt-{test}-{}", std::process::id()));
            fs::create_dir_all(root.join("bin")).unwrap();
            let bed = Self(root);
            let note = format!("echo \"$@\" >>'{0}/log'\ncat '{0}/policy' >>'{0}/log'\n", bed.0.display());
            bed.program("apt-get", &format!("{note}{apt_get}"));
            bed.program("apt-cache", "for p; do :; done; [ \"$p\" != unknown ]\n");
            bed.program("systemctl", &format!("echo systemctl \"$@\" >>'{}/log'\n", bed.0.display()));
            bed
        }

        fn program(&self, name: &str, text: &str) {
            let path = self.0.join("bin").join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn policy(&self) -> PathBuf {
            self.0.join("policy")
        }

        fn run(&self, packages: &[&str]) -> std::process::Output {
            let mut command = Command::new("env");
            command.env("PATH", format!("{}/bin:/usr/bin:/bin", self.0.display()));
            add_script(&mut command, &self.policy(), &self.0.join("lock"), packages);
            command.output().unwrap()
        }

        fn log(&self) -> String {
            fs::read_to_string(self.0.join("log")).unwrap()
        }
    }

    impl Drop for Bed {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn services_are_held_back_during_the_install_only() {
        let bed = Bed::new("policy", "");
        let output = bed.run(&["etcd-server", "iperf3"]);
        assert!(output.status.success(), "{output:?}");
        assert!(!bed.policy().exists());
        let log = bed.log();
        let install = log.find("install -y --no-install-recommends etcd-server iperf3\n#!/bin/sh").unwrap();
        assert!(log[install..].contains("exit 101"), "{log}");
        assert!(log.contains("systemctl --quiet disable etcd.service"), "{log}");
        assert!(!log.contains("docker"), "{log}");
    }

    #[test]
    fn the_policy_goes_even_when_apt_fails() {
        let bed = Bed::new("fails", "case \"$*\" in *' -s '*) ;; *install*) exit 100 ;; esac\n");
        let output = bed.run(&["iperf3"]);
        assert_eq!(output.status.code(), Some(100), "{output:?}");
        assert!(!bed.policy().exists());
    }

    #[test]
    fn a_policy_of_the_machines_own_stays_as_it_is() {
        let bed = Bed::new("own", "");
        fs::write(bed.policy(), "#!/bin/sh\nexit 0\n").unwrap();
        assert!(bed.run(&["iperf3"]).status.success());
        assert_eq!(fs::read_to_string(bed.policy()).unwrap(), "#!/bin/sh\nexit 0\n");
    }

    #[test]
    fn a_policy_left_by_a_killed_setup_is_taken_away() {
        let bed = Bed::new("left", "");
        fs::write(bed.policy(), "#!/bin/sh\n# made by cargo xtask setup\nexit 101\n").unwrap();
        assert!(bed.run(&["iperf3"]).status.success());
        assert!(!bed.policy().exists());
    }

    #[test]
    fn packages_apt_does_not_know_are_skipped_and_named() {
        let bed = Bed::new("unknown", "");
        let output = bed.run(&["unknown", "iperf3"]);
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("apt knows no package unknown"));
        assert!(bed.log().contains("--no-install-recommends iperf3\n"));
    }

    #[test]
    fn nothing_of_the_users_is_removed_but_busybox() {
        let plan = |line: &str| format!("case \"$*\" in *' -s '*) echo '{line}' ;; esac\n");
        let bed = Bed::new("removes", &plan("Remv rustup [1.25]"));
        let output = bed.run(&["rustc-web"]);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("would remove rustup"), "{output:?}");
        let bed = Bed::new("busybox", &plan("Remv busybox [1.35]"));
        assert!(bed.run(&["busybox-static"]).status.success());
    }
}
