//! Archives of the kind an initial filesystem is made of (the kernel's early-userspace/buffer-format). Several
//! of them one after another are one filesystem.

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
/// The kernel skips zeroes up to the next archive at a multiple of this.
const BLOCK: usize = 4;

/// An archive in the making.
#[derive(Debug)]
pub(super) struct Archive<W> {
    to: W,
    inodes: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, inodes: 0 }
    }

    pub(super) fn directory(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, DIRECTORY, &[])
    }

    /// A file that may be run.
    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.entry(path, FILE, bytes)
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.to)
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.inodes += 1;
        let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let name = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
        let mut header = String::from("070701");
        for field in [self.inodes, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0] {
            header.push_str(&format!("{field:08x}"));
        }
        let mut head = header.into_bytes();
        head.extend(path.as_bytes());
        head.push(0);
        head.resize(head.len().next_multiple_of(BLOCK), 0);
        self.to.write_all(&head)?;
        self.to.write_all(bytes)?;
        self.to.write_all(&[0; BLOCK][..bytes.len().next_multiple_of(BLOCK) - bytes.len()])
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn busybox_lists_what_was_written() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("bin").unwrap();
        archive.file("bin/odd", b"12345").unwrap();
        archive.file("init", b"").unwrap();
        let bytes = archive.finish().unwrap();
        let mut list = Command::new("busybox")
            .args(["cpio", "-itv"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        list.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = list.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let rows: Vec<_> = lines.iter().map(|row| (row[0], row[2], row[row.len() - 1])).collect();
        assert_eq!(
            rows,
            [("drwxr-xr-x", "0", "bin"), ("-rwxr-xr-x", "5", "bin/odd"), ("-rwxr-xr-x", "0", "init")]
        );
    }
}
