//! The kernels: which there are, and one of each unpacked in the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};

use super::{apt::Apt, image};

/// How long a kernel is taken from the cache without asking whether there is a newer one of its series.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);

/// A series of kernels, of which the newest is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Series {
    /// `6.1`: of this machine's own package sources.
    Packaged(String),
    /// The newest there is, from Debian's unstable suite.
    Sid,
}

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        match text.split_once('.') {
            _ if text == "sid" => Ok(Self::Sid),
            Some((major, minor)) if number(major) && number(minor) => Ok(Self::Packaged(text.to_owned())),
            _ => Err(format!("`{text}` is no kernel: give a series as 6.1 or 6.12, or sid")),
        }
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Packaged(series) => series,
            Self::Sid => "sid",
        })
    }
}

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// As `uname -r` tells it.
    pub(super) version: String,
    /// What the emulator loads.
    pub(super) kernel: PathBuf,
    /// The initial filesystem, without the command.
    pub(super) initrd: PathBuf,
    /// The directory of all its modules: `<version>/…`.
    pub(super) modules: PathBuf,
}

impl Image {
    /// The image in a directory, where a complete one is there.
    fn open(directory: &Path) -> Option<Self> {
        let version = fs::read_to_string(directory.join(image::VERSION)).ok()?;
        Some(Self {
            version,
            kernel: directory.join(image::KERNEL),
            initrd: directory.join(image::INITRD),
            modules: directory.join(image::MODULES),
        })
    }
}

/// The newest kernel of a series, downloaded and unpacked where the cache has none.
pub(super) fn ready(series: &Series, cache: &Path) -> Result<Image> {
    let directory = cache.join(format!("linux-{series}"));
    // Two at once would unpack into the same place.
    let lock =
        File::create(cache.join("lock")).with_context(|| format!("cannot write {}", cache.display()))?;
    lock.lock().context("cannot lock the cache")?;
    let cached = Image::open(&directory);
    if let Some(image) = &cached
        && is_fresh(&directory.join(image::VERSION))
    {
        return Ok(image.clone());
    }
    let made = make(series, cache, &directory);
    match (made, cached) {
        (Ok(()), _) => {}
        (Err(error), Some(image)) => {
            eprintln!("using Linux {} of an earlier run: {error:#}", image.version);
            return Ok(image);
        }
        (Err(error), None) => return Err(error.context(format!("no {series} kernel to boot"))),
    }
    match Image::open(&directory) {
        Some(image) => Ok(image),
        None => bail!("{} has no complete kernel: remove it", directory.display()),
    }
}

fn is_fresh(file: &Path) -> bool {
    let age = |file: &Path| SystemTime::now().duration_since(file.metadata().ok()?.modified().ok()?).ok();
    age(file).is_some_and(|age| age < FRESH)
}

fn make(series: &Series, cache: &Path, directory: &Path) -> Result<()> {
    let (apt, packages) = match series {
        Series::Packaged(number) => {
            let apt = Apt::of_this_machine();
            let name = newest(number, &apt.names(&format!("linux-image-{number}."))?);
            let name = name.with_context(|| {
                format!("this machine's package lists have none: `apt-get update`, or other --kernel than {number}?")
            })?;
            (apt, vec![name])
        }
        Series::Sid => {
            let apt = Apt::sid(&cache.join("apt-sid"))?;
            // linux-image-amd64 depends on linux-image-<version>, which is split into these.
            let image = apt.dependency("linux-image-amd64", "linux-image-")?;
            let version = image.trim_start_matches("linux-image-");
            let part = |part: &str| format!("linux-{part}-{version}");
            (apt, ["binary", "modules", "base"].map(part).to_vec())
        }
    };
    let (new, debs) = (cache.join(format!("linux-{series}.new")), cache.join("debs"));
    for leftover in [&new, &debs] {
        remove(leftover)?;
    }
    eprintln!("unpacking {} into {}", packages.join(", "), directory.display());
    image::make(&apt.download(&packages, &debs)?, &new)?;
    remove(&debs)?;
    remove(directory)?;
    fs::rename(&new, directory).with_context(|| format!("cannot make {}", directory.display()))
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

/// The newest of the plain signed kernels among `names`: no debug symbols, no cloud or realtime flavour.
fn newest(series: &str, names: &[String]) -> Option<String> {
    let version = |name: &str| -> Option<Vec<u32>> {
        let rest = name.strip_prefix("linux-image-")?.strip_prefix(series)?.strip_prefix('.')?;
        let plain = rest.strip_suffix("-amd64")?;
        if ["-rt", "-cloud"].iter().any(|flavour| plain.ends_with(flavour)) {
            return None;
        }
        // 115+deb12, 0-55: the numbers decide.
        plain
            .split(['.', '-', '+'])
            .map(|part| part.trim_start_matches(char::is_alphabetic).parse().ok())
            .collect()
    };
    let known = names.iter().filter_map(|name| Some((version(name)?, name)));
    known.max().map(|(_, name)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_two_numbers_or_sid() {
        assert_eq!("6.12".parse(), Ok(Series::Packaged("6.12".into())));
        assert_eq!("sid".parse(), Ok(Series::Sid));
        for bad in ["", "6", "6.", ".1", "6.1.2", "v6.1", "trixie", "6.1/x"] {
            assert!(bad.parse::<Series>().unwrap_err().contains("6.12, or sid"), "{bad}");
        }
    }

    #[test]
    fn the_newest_plain_kernel_is_chosen_by_its_numbers() {
        let names =
            |names: &[&str]| names.iter().map(|name| format!("linux-image-{name}")).collect::<Vec<_>>();
        let list = names(&[
            "6.1.0-9-amd64",
            "6.1.0-55-amd64",
            "6.1.0-56-rt-amd64",
            "6.1.0-57-cloud-amd64",
            "6.1.0-58-amd64-dbg",
            "6.1.0-59-amd64-unsigned",
            "6.12.115+deb12-amd64",
            "6.12.99+deb12-amd64",
        ]);
        assert_eq!(newest("6.1", &list).as_deref(), Some("linux-image-6.1.0-55-amd64"));
        assert_eq!(newest("6.12", &list).as_deref(), Some("linux-image-6.12.115+deb12-amd64"));
        assert_eq!(newest("6.2", &list), None);
    }
}
