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
        Self::with_lists(directory, &mirror.line("sid"), &[])
    }

    /// The backports of this machine's release, and for what they need the release itself; with lists of their own, too.
    pub(super) fn backports(directory: &Path) -> Result<Self> {
        let mirror = Self::default().mirror()?;
        let release = mirror.release.trim_end_matches("-updates");
        let backports = format!("{release}-backports");
        let lists = format!("{}{}", mirror.line(release), mirror.line(&backports));
        Self::with_lists(directory, &lists, &["-o", &format!("APT::Default-Release={backports}")])
    }

    fn with_lists(directory: &Path, lists: &str, more: &[&str]) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let list = directory.join("sources.list");
        fs::write(&list, lists)?;
        let option = |name: &str, path: &Path| ["-o".to_owned(), format!("{name}={}", path.display())];
        let options = [
            option("Dir::Etc::sourcelist", &list),
            option("Dir::Etc::sourceparts", Path::new("-")),
            option("Dir::State::lists", &directory.join("lists")),
            option("Dir::Cache", &directory.join("cache")),
        ];
        let mut apt = Self { options: options.concat() };
        output(apt.command("apt-get").args(["-qq", "update"]))?;
        apt.options.extend(more.iter().map(|&option| option.to_owned()));
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
        let format = "$(REPO_URI)|$(COMPONENT)|$(ORIGIN)|$(LABEL)|$(SIGNED_BY)|$(CODENAME)";
        let mut apt = self.command("apt-get");
        let out = output(apt.args(["indextargets", "--format", format, "Created-By: Packages"]))?;
        match out.lines().find_map(Mirror::parse) {
            Some(mirror) => Ok(mirror),
            None => {
                bail!(
                    "this machine's apt has no source of Debian's main component to take other releases' packages from"
                )
            }
        }
    }
}

/// A Debian archive.
#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    uri: String,
    signed_by: String,
    /// The release that this machine takes from it.
    release: String,
}

impl Mirror {
    /// From a line of the machine's sources, where it is of Debian's main archive; security updates have another.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('|');
        let mut next = || fields.next();
        let (uri, component, origin, label) = (next()?, next()?, next()?, next()?);
        let [signed_by, release] = [next()?, next()?].map(str::to_owned);
        let debian = component == "main" && origin == "Debian" && label == "Debian";
        debian.then(|| Self { uri: uri.to_owned(), signed_by, release })
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
            Mirror::parse(&format!("http://mirror.example/debian/|main|Debian|Debian|{key}|bookworm"))
                .unwrap();
        assert_eq!(
            mirror.line("sid"),
            format!("deb [signed-by={key}] http://mirror.example/debian/ sid main\n")
        );
        assert_eq!(mirror.release, "bookworm");
        for other in [
            "u|main|Debian|Debian-Security|k|r",
            "u|contrib|Debian|Debian|k|r",
            "u|main|Ubuntu|Ubuntu|k|r",
            "",
        ] {
            assert_eq!(Mirror::parse(other), None, "{other}");
        }
        let unsigned = Mirror::parse("http://mirror.example/debian/|main|Debian|Debian||r").unwrap();
        assert_eq!(unsigned.line("sid"), "deb http://mirror.example/debian/ sid main\n");
    }
}
