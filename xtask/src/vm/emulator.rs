//! The emulator: qemu, the machine's own or one unpacked from its package, and a boot with a command in it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{apt, apt::Apt, guest::Guest, kernel::Image};
use crate::command;

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// The network card that came last, with qemu 8.0.
const NEWEST_CARD: &str = "igb";

/// Says in an unpacked one that there was no newer.
const ASKED: &str = "newest";

/// A boot that dies before the command begins is tried again, this often in all. Kernel 7.2 dies so under qemu 7.2
/// about once in 25 boots.
const BOOTS: u32 = 3;

/// Megabytes of memory: programs, daemons and what they write.
const MEMORY: &str = "3072";

/// A CPU without what takes an emulator long.
const CPU: &str = "max,la57=off,pku=off,smap=off,smep=off";

const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 oops=panic reboot=t,force mitigations=off nokaslr audit=0 \
    tsc=reliable no_timer_check random.trust_cpu=on rdinit=/init";

/// qemu, and what it takes to start it.
#[derive(Debug)]
pub(super) struct Emulator {
    program: PathBuf,
    /// The root of an unpacked one.
    root: Option<PathBuf>,
}

impl Emulator {
    /// The machine's own where it has all models of network cards, else one in the cache. It is not installed: beside
    /// tools of another qemu release, apt would have to remove those.
    pub(super) fn find(cache: &Path) -> Result<Self> {
        let own = command::find(PROGRAM).map(|program| Self { program, root: None });
        if let Some(own) = own.filter(Self::is_recent) {
            return Ok(own);
        }
        let root = cache.join("qemu");
        let program = root.join("usr/bin").join(PROGRAM);
        let unpacked = Self { program: program.clone(), root: Some(root.clone()) };
        // One without the newest cards may be the newest there is; that is asked once.
        if !program.is_file() || !root.join(ASKED).is_file() && !unpacked.is_recent() {
            unpack(&root, cache)
                .context("there is no qemu-system-x86_64, and its package cannot be unpacked")?;
            fs::write(root.join(ASKED), "")?;
        }
        ensure!(program.is_file(), "the package {PACKAGE} has no {}", program.display());
        Ok(unpacked)
    }

    /// Which of these models of network cards it has.
    pub(super) fn has_card(&self, model: &str) -> bool {
        let help = self.start().args(["-device", "help"]).output();
        help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains(&format!("name \"{model}\"")))
    }

    fn is_recent(&self) -> bool {
        self.has_card(NEWEST_CARD)
    }

    /// Boots a kernel and runs a command in it. Its standard output goes to `out`, its standard error to ours.
    /// Returns its exit status.
    pub(super) fn run(&self, image: &Image, guest: &Guest, out: &mut (dyn Write + Send)) -> Result<i32> {
        let directory = Scratch::new()?;
        let initrd = directory.0.join("initrd");
        let mut file = File::create(&initrd)?;
        io::copy(&mut File::open(&image.initrd)?, &mut file)?;
        file.write_all(&guest.archive()?)?;
        drop(file);
        let deadline = Instant::now() + guest.timeout;
        for boot in 1..=BOOTS {
            let status = self.boot(image, guest, &directory.0, deadline, out)?;
            let said = fs::read_to_string(directory.0.join("status")).unwrap_or_default();
            let Some(status) = status else {
                let limit = guest.timeout.as_secs();
                bail!("`{}` did not end within {limit} s on Linux {}", guest.shown, image.version);
            };
            match said.lines().collect::<Vec<_>>().as_slice() {
                [_, code] => return code.parse().with_context(|| format!("the guest ended with `{code}`")),
                // Begun: never run twice.
                [_] => bail!("Linux {} died while the command ran\n{}", image.version, console(&directory.0)),
                _ => eprintln!(
                    "boot {boot} of Linux {} died before the command began ({status})",
                    image.version
                ),
            }
        }
        bail!("Linux {} does not boot\n{}", image.version, console(&directory.0))
    }

    /// One boot. `None` where the time was up.
    fn boot(
        &self,
        image: &Image,
        guest: &Guest,
        directory: &Path,
        deadline: Instant,
        out: &mut (dyn Write + Send),
    ) -> Result<Option<ExitStatus>> {
        let _ = fs::remove_file(directory.join("status"));
        let mut qemu = self.command(image, guest, directory);
        let mut child =
            Running(qemu.spawn().with_context(|| format!("cannot start {}", self.program.display()))?);
        let (stdout, stderr) = (child.0.stdout.take(), child.0.stderr.take());
        thread::scope(|scope| {
            let out = scope.spawn(move || copy(stdout, out));
            let err = scope.spawn(move || copy(stderr, &mut io::stderr()));
            let status = child.wait(deadline);
            for copied in [out.join(), err.join()] {
                copied.unwrap_or(Ok(())).context("cannot pass the guest's output on")?;
            }
            Ok(status?)
        })
    }

    /// The program with what it needs to start.
    fn start(&self) -> Command {
        let mut qemu = Command::new(&self.program);
        if let Some(root) = &self.root {
            let libraries = root.join("usr/lib/x86_64-linux-gnu");
            qemu.env("QEMU_MODULE_DIR", libraries.join("qemu")).env("LD_LIBRARY_PATH", libraries);
            for firmware in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
                qemu.arg("-L").arg(root.join(firmware));
            }
        }
        qemu
    }

    fn command(&self, image: &Image, guest: &Guest, directory: &Path) -> Command {
        let mut qemu = self.start();
        qemu.args([
            "-machine",
            "pc,hpet=off,vmport=off",
            "-accel",
            "tcg,thread=multi,tb-size=1024",
            "-cpu",
            CPU,
        ])
        .args(["-smp", "2", "-m", MEMORY, "-nodefaults", "-nic", "none", "-display", "none", "-no-reboot"])
        .args(["-append", KERNEL_ARGUMENTS, "-device", "virtio-serial-pci"])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(directory.join("initrd"))
        .args(["-serial", &format!("file:{}", option(&directory.join("console")))]);
        for (path, tag) in [(Path::new("/"), "hostroot"), (&image.modules, "modules")] {
            let share = "local,security_model=none,readonly=on,multidevs=remap";
            qemu.args(["-virtfs", &format!("{share},path={},mount_tag={tag}", option(path))]);
        }
        qemu.args(cards(&guest.cards));
        // Its own outputs are the pipes that we made.
        let status = directory.join("status");
        for (name, path) in [
            ("status", status.as_path()),
            ("out", Path::new("/proc/self/fd/1")),
            ("err", Path::new("/proc/self/fd/2")),
        ] {
            qemu.args(["-chardev", &format!("file,id={name},path={},append=on", option(path))]);
            qemu.args(["-device", &format!("virtserialport,chardev={name},name={name}")]);
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        qemu
    }
}

/// Two network cards of each model, and a hub for them. Each has a bus to itself: igb's virtual functions take a row of
/// places. None is to be booted from.
fn cards(models: &[&str]) -> Vec<String> {
    let mut arguments = Vec::new();
    let places = models.iter().enumerate().flat_map(|(hub, model)| [(hub, model), (hub, model)]);
    for (number, (hub, model)) in (1..).zip(places) {
        let mac = format!("52:54:00:00:00:{number:02x}");
        arguments.extend(["-netdev".to_owned(), format!("hubport,id=port{number},hubid={hub}")]);
        arguments.extend([
            "-device".to_owned(),
            format!("pci-bridge,id=bus{number},chassis_nr={number},shpc=off"),
            "-device".to_owned(),
            format!("{model},bus=bus{number},netdev=port{number},mac={mac},romfile="),
        ]);
    }
    arguments
}

/// Downloads the emulator's package with all that this machine lacks for it, and unpacks them.
fn unpack(root: &Path, cache: &Path) -> Result<()> {
    let (new, debs) = (cache.join("qemu.new"), cache.join("qemu.debs"));
    for leftover in [&new, &debs] {
        if leftover.exists() {
            fs::remove_dir_all(leftover)?;
        }
    }
    // A release's backports have a newer one; not every release has backports.
    let apt = Apt::backports(&cache.join("apt-backports")).unwrap_or_else(|_| Apt::of_this_machine());
    let packages = apt.with_dependencies(PACKAGE)?;
    eprintln!("unpacking {PACKAGE} and what it needs into {}", root.display());
    fs::create_dir_all(&new)?;
    for deb in apt.download(&packages, &debs)? {
        apt::unpack(&deb, &new)?;
    }
    fs::remove_dir_all(&debs)?;
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    fs::rename(&new, root).with_context(|| format!("cannot make {}", root.display()))
}

/// A path as a value of one of qemu's options, where a comma ends it and two are one.
fn option(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

fn console(directory: &Path) -> String {
    let bytes = fs::read(directory.join("console")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Passes bytes on as they come.
fn copy(from: Option<impl Read>, to: &mut (dyn Write + Send)) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = [0; 8192];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read])?;
        to.flush()?;
    }
}

/// An emulator that runs; dropping it ends it.
struct Running(Child);

impl Running {
    /// `None` where it was still running at the deadline, and was ended.
    fn wait(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                self.0.kill()?;
                self.0.wait()?;
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory for one run.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let name = format!("overlayd-vm-{}-{:?}", std::process::id(), thread::current().id());
        let path = std::env::temp_dir().join(name.replace(['(', ')'], ""));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
