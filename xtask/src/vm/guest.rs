//! What runs in a guest: a command line with its directory and environment, as a script.

use std::env;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::cpio::Archive;

/// The guest's own; the caller's `PATH` may name places that are not there.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that mean something in a guest.
const PASSED_ON: [&str; 3] = ["RUST_BACKTRACE", "RUST_LOG", "OVERLAYD_LOG"];

/// A command for a guest.
#[derive(Debug)]
pub(super) struct Guest {
    script: String,
    /// As a person would type it.
    pub(super) shown: String,
    /// How long boot and command may take together.
    pub(super) timeout: Duration,
    /// Network cards, by the emulator's names: two of each, on a wire of their own.
    pub(super) cards: Vec<&'static str>,
}

impl Guest {
    /// A command line in the caller's directory.
    pub(super) fn command(words: &[String], timeout: Duration) -> Result<Self> {
        let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
        Ok(Self::script(&env::current_dir()?, &[], &quoted.join(" "), words.join(" "), timeout))
    }

    /// Lines for a shell, in a directory and with variables.
    pub(super) fn script(
        directory: &Path,
        variables: &[(&str, String)],
        lines: &str,
        shown: String,
        timeout: Duration,
    ) -> Self {
        let mut script = format!("export PATH={PATH} HOME=/root TERM=dumb\n");
        let passed = PASSED_ON.iter().filter_map(|name| Some((*name, env::var(name).ok()?)));
        for (name, value) in variables.iter().cloned().chain(passed) {
            let _ = writeln!(script, "export {name}={}", quote(&value));
        }
        let _ = writeln!(script, "cd {} || exit 125\n{lines}", quote(&directory.display().to_string()));
        Self { script, shown, timeout, cards: Vec::new() }
    }

    /// The same with network cards.
    pub(super) fn with_cards(mut self, cards: impl IntoIterator<Item = &'static str>) -> Self {
        self.cards.extend(cards);
        self
    }

    /// The archive that brings the command into the initial filesystem.
    pub(super) fn archive(&self) -> Result<Vec<u8>> {
        let mut archive = Archive::new(Vec::new());
        archive.file("command", self.script.as_bytes())?;
        Ok(archive.finish()?)
    }
}

/// A word as a shell takes it for one.
pub(super) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn words_arrive_as_they_were_given() {
        let words = ["printf", "%s|", "a b", "it's", "$HOME", "", "\n*"].map(str::to_owned);
        let guest = Guest::command(&words, Duration::ZERO).unwrap();
        let output = Command::new("bash").args(["-c", &guest.script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "a b|it's|$HOME||\n*|");
    }

    #[test]
    fn variables_and_directory_are_set() {
        let variables = [("OVERLAYD_BIN_DIR", "/a b".to_owned())];
        let guest = Guest::script(
            Path::new("/"),
            &variables,
            "pwd; echo \"$OVERLAYD_BIN_DIR\"",
            String::new(),
            Duration::ZERO,
        );
        let output = Command::new("bash").args(["-c", &guest.script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "/\n/a b\n");
    }
}
