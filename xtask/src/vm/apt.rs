//! Packages by way of apt, from where this machine gets its own. Nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command;

/// An apt with package lists.
#[derive(Debug, Default)]
pub(super) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// The machine's, as it is configured.
    pub(super) fn of_this_machine() -> Self {
        Self::default()
    }

    /// Debian's unstable suite on the mirror that this machine uses, with lists of its own in `directory`: the
    /// machine's apt knows nothing of it.
    pub(super) fn sid(directory: &Path) -> Result<Self> {
        let mirror = Self::default().mirror()?;
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let list = directory.join("sources.list");
        fs::write(&list, mirror.line("sid"))?;
        let option = |name: &str, path: &Path| ["-o".to_owned(), format!("{name}={}", path.display())];
        let options = [
            option("Dir::Etc::sourcelist", &list),
            option("Dir::Etc::sourceparts", Path::new("-")),
            option("Dir::State::lists", &directory.join("lists")),
            option("Dir::Cache", &directory.join("cache")),
        ];
        let apt = Self { options: options.concat() };
        output(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    /// All package names that begin so.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let out = output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(out.lines().map(str::to_owned).collect())
    }

    /// The dependency of a package whose name begins so.
    pub(super) fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let out = output(self.command("apt-cache").args(["depends", package]))?;
        let mut names = out.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let name = names.find(|name| name.starts_with(prefix));
        Ok(name.with_context(|| format!("{package} depends on no {prefix}…"))?.to_owned())
    }

    /// What would be installed for a package on this machine, itself included.
    pub(super) fn with_dependencies(&self, package: &str) -> Result<Vec<String>> {
        let simulate = ["-s", "-q", "install", "--no-install-recommends", package];
        let out = output(self.command("apt-get").args(simulate))?;
        let names = out.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
        Ok(names.map(str::to_owned).collect())
    }

    /// Downloads packages into a new directory. Returns the files.
    pub(super) fn download(&self, packages: &[String], directory: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let mut apt = self.command("apt-get");
        output(apt.args(["-qq", "download"]).args(packages).current_dir(directory))?;
        let mut files = Vec::new();
        for entry in fs::read_dir(directory)? {
            files.push(entry?.path());
        }
        ensure!(
            files.len() == packages.len(),
            "apt-get downloaded {} of {} packages",
            files.len(),
            packages.len()
        );
        Ok(files)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // As root it would fetch as a user of its own, who may not write where we want the files.
        command.env("LC_ALL", "C").args(["-o", "APT::Sandbox::User=root"]).args(&self.options);
        command
    }

    /// Where this machine's Debian comes from.
    fn mirror(&self) -> Result<Mirror> {
        let format = "$(REPO_URI)|$(COMPONENT)|$(ORIGIN)|$(LABEL)|$(SIGNED_BY)";
        let mut apt = self.command("apt-get");
        let out = output(apt.args(["indextargets", "--format", format, "Created-By: Packages"]))?;
        match out.lines().find_map(Mirror::parse) {
            Some(mirror) => Ok(mirror),
            None => {
                bail!("this machine's apt has no source of Debian's main component to take sid's kernel from")
            }
        }
    }
}

/// A Debian archive.
#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    uri: String,
    signed_by: String,
}

impl Mirror {
    /// From a line of the machine's sources, where it is of Debian's main archive; security updates have another.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('|');
        let mut next = || fields.next();
        let (uri, component, origin, label, signed_by) = (next()?, next()?, next()?, next()?, next()?);
        let debian = component == "main" && origin == "Debian" && label == "Debian";
        debian.then(|| Self { uri: uri.to_owned(), signed_by: signed_by.to_owned() })
    }

    /// The line of a sources.list for a suite.
    fn line(&self, suite: &str) -> String {
        let signed = |by: &str| format!("[signed-by={by}] ");
        let options = Some(self.signed_by.as_str()).filter(|by| by.starts_with('/')).map(signed);
        format!("deb {}{} {suite} main\n", options.unwrap_or_default(), self.uri)
    }
}

/// Unpacks a package into a directory; nothing of it is run.
pub(super) fn unpack(deb: &Path, directory: &Path) -> Result<()> {
    output(Command::new("dpkg-deb").arg("-x").arg(deb).arg(directory)).map(drop)
}

/// Runs a command to its end, silently. Returns its standard output.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start `{}`", command::shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}", command::shown(command), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_own_main_archive_is_a_mirror() {
        let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let mirror =
            Mirror::parse(&format!("http://mirror.example/debian/|main|Debian|Debian|{key}")).unwrap();
        assert_eq!(
            mirror.line("sid"),
            format!("deb [signed-by={key}] http://mirror.example/debian/ sid main\n")
        );
        for other in
            ["u|main|Debian|Debian-Security|k", "u|contrib|Debian|Debian|k", "u|main|Ubuntu|Ubuntu|k", ""]
        {
            assert_eq!(Mirror::parse(other), None, "{other}");
        }
        let unsigned = Mirror::parse("http://mirror.example/debian/|main|Debian|Debian|").unwrap();
        assert_eq!(unsigned.line("sid"), "deb http://mirror.example/debian/ sid main\n");
    }
}
