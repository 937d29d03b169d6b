//! Adds up the `test result:` lines of many test binaries.

/// Tests passed, failed, and skipped: what they test is not to be had here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// Takes one line of output; lines that are no summary count nothing.
    pub(crate) fn add_line(&mut self, line: &str) {
        let Some(counts) = line.trim_end().strip_prefix("test result: ") else { return };
        // `ok. 3 passed; 0 failed; 1 ignored; …`
        let counts = counts.split_once(". ").map_or("", |(_, counts)| counts);
        for count in counts.split("; ") {
            match count.split_once(' ').map(|(number, what)| (number.parse::<u64>(), what)) {
                Some((Ok(number), "passed")) => self.passed += number,
                Some((Ok(number), "failed")) => self.failed += number,
                Some((Ok(number), "ignored")) => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Adds the run that `part` counted. One that failed without a failed test (it did not compile, a
    /// binary was killed) counts as a failure: nobody who reads the totals alone may take it for good.
    pub(crate) fn add_run(&mut self, part: Self, succeeded: bool) {
        self.passed += part.passed;
        self.skipped += part.skipped;
        self.failed += if succeeded { part.failed } else { part.failed.max(1) };
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 { write!(f, ", {} skipped", self.skipped) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_add_up_and_other_lines_count_nothing() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test a::passed ... FAILED",
            "100 passed; 100 failed",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.50s\r",
            "test result: ",
        ] {
            tally.add_line(line);
        }
        assert_eq!(tally, Tally { passed: 7, failed: 2, skipped: 1 });
        assert_eq!(tally.to_string(), "7 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_run_that_dies_is_a_failure() {
        let mut total = Tally::default();
        total.add_run(Tally { passed: 5, ..Tally::default() }, true);
        total.add_run(Tally { passed: 1, ..Tally::default() }, false);
        total.add_run(Tally { failed: 3, ..Tally::default() }, false);
        assert_eq!(total, Tally { passed: 6, failed: 4, skipped: 0 });
        assert_eq!(total.to_string(), "6 passed, 4 failed");
    }
}
