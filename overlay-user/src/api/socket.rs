//! The socket's file.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use tokio::net::UnixListener;

/// Root and its group may ask.
const MODE: u32 = 0o660;

/// A socket of ours.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Makes the socket, in place of one that nobody answers on any more.
    ///
    /// # Errors
    /// One line: somebody answers there, something else is in the place, or it cannot be made.
    pub fn bind(path: &Path) -> anyhow::Result<(Self, UnixListener)> {
        let advice = || format!("cannot listen on --socket {}", path.display());
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(advice)?;
        }
        match UnixStream::connect(path) {
            Ok(_) => {
                bail!("another overlayd answers on {}: give this one a --socket of its own", path.display())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A daemon that was killed leaves it behind.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
                fs::remove_file(path).with_context(advice)?;
            }
            Err(error) => return Err(error).with_context(advice),
        }
        let listener = UnixListener::bind(path).with_context(advice)?;
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).with_context(advice)?;
        Ok((Self { path: path.to_path_buf() }, listener))
    }

    /// Takes it away, and its directory where nothing else is in it.
    pub(super) fn remove(&self) {
        unlink(&self.path);
    }
}

/// Takes the socket of a daemon away that was killed.
pub fn remove(path: &Path) {
    if is_socket(path) && UnixStream::connect(path).is_err() {
        unlink(path);
    }
}

fn unlink(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
    // Not empty, most likely.
    let _ = path.parent().map(fs::remove_dir);
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_is_left_behind_is_replaced_and_one_that_answers_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/overlayd.sock");
        let (socket, listener) = Socket::bind(&path).unwrap();
        let error = Socket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("another overlayd") && error.contains("--socket"), "{error}");
        drop(listener);
        let (_, listener) = Socket::bind(&path).unwrap();
        drop(listener);
        socket.remove();
        assert!(!path.parent().unwrap().exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "mine").unwrap();
        assert!(Socket::bind(&path).is_err());
        remove(&path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
