//! How large the programs are, held to a tracked table: what makes them grow is seen when it is written, not
//! when a kernel refuses them.

use std::{env, fmt::Write as _, fs, path::PathBuf};

use harness::Scope;
use overlay_common::map::program;
use overlay_user::datapath::{load::Programs, pin::Pins};

/// Rewrites the table.
const UPDATE: &str = "OVERLAYD_BUDGET_UPDATE";

/// A budget is this many halves of what a program takes when it is set.
const HALVES: u32 = 3;

/// What any kernel may take to verify a program: a tenth of where the verifier gives up (`BPF_COMPLEXITY_LIMIT_INSNS`).
const ANYWHERE: u32 = 100_000;

/// Instructions that the verifier looked at, bytes after its rewriting, bytes of machine code.
type Sizes = [u32; 3];
const COLUMNS: [&str; 3] = ["verified instructions", "translated bytes", "machine code bytes"];

fn file() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/program-budget.md"))
}

fn measure() -> Vec<(&'static str, Sizes)> {
    let scope = Scope::unique().unwrap();
    let pins = Pins::new(&scope.pin_dir("budget"));
    pins.prepare().unwrap();
    let mut programs = Programs::load(&pins).unwrap();
    let sizes = |name| {
        let info = match name {
            program::UPLINK_DECAP => programs.xdp(&pins).unwrap().info(),
            _ => programs.get(name).unwrap().info(),
        };
        let info = info.unwrap();
        let verified = info.verified_instruction_count().expect("kernel 5.16 tells it");
        let translated = info.size_translated().expect("the kernel tells root");
        (name, [verified, translated, info.size_jitted()])
    };
    program::ALL.map(sizes).to_vec()
}

/// The kernel's series, as `6.18`.
fn running_on() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    format!("{}.{}", numbers.next().unwrap(), numbers.next().unwrap())
}

/// The series that the table was measured on.
fn measured_on(text: &str) -> &str {
    let (_, rest) =
        text.split_once("measured, on Linux ").expect("docs/program-budget.md says on which kernel");
    rest.split_whitespace().next().unwrap_or_default()
}

/// What the verifier may take for a program on this kernel: it walks more on others, for the same code.
fn verifier_budget(text: &str, budget: u32) -> u32 {
    if measured_on(text) == running_on() { budget } else { ANYWHERE }
}

/// The rows of the table: name, sizes when the budget was set, budgets.
fn rows(text: &str) -> Vec<(String, Sizes, Sizes)> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
        let number = |cell: usize| cells.get(cell)?.replace(',', "").parse().ok();
        let numbers: Option<Vec<u32>> = (1..=6).map(number).collect();
        let numbers = numbers?;
        let name = cells.first()?.trim_end_matches('`').to_owned();
        Some((name, [numbers[0], numbers[2], numbers[4]], [numbers[1], numbers[3], numbers[5]]))
    };
    text.lines().filter_map(row).collect()
}

fn updated(text: &str, sizes: &[(&str, Sizes)]) -> String {
    let measured = |series: &str| format!("measured, on Linux {series} ");
    let text = text.replace(&measured(measured_on(text)), &measured(&running_on()));
    let (before, _) = text.split_once("| program |").expect("docs/program-budget.md has the table");
    let mut text = format!("{before}| program |");
    for column in COLUMNS {
        let _ = write!(text, " {column} | budget |");
    }
    text.push_str("\n|---|--:|--:|--:|--:|--:|--:|\n");
    for (name, sizes) in sizes {
        let _ = write!(text, "| `{name}` |");
        for size in sizes {
            let _ = write!(text, " {size} | {} |", (size * HALVES / 2).next_multiple_of(100));
        }
        text.push('\n');
    }
    text
}

#[test]
fn every_program_keeps_to_its_budget() {
    let (sizes, text) = (measure(), fs::read_to_string(file()).unwrap());
    if env::var_os(UPDATE).is_some() {
        fs::write(file(), updated(&text, &sizes)).unwrap();
        return;
    }
    let rows = rows(&text);
    let mut over = String::new();
    for (name, sizes) in sizes {
        let row = rows.iter().find(|(row, ..)| row == name);
        let Some((_, set, budgets)) = row else { panic!("docs/program-budget.md has no row for {name}") };
        for (column, what) in COLUMNS.iter().enumerate() {
            let (is, set, mut budget) = (sizes[column], set[column], budgets[column]);
            if column == 0 {
                budget = verifier_budget(&text, budget);
            }
            println!("{name:16} {what:22} {is:6}, {set:6} when the budget of {budget} was set");
            if is > budget {
                let _ = writeln!(over, "{name}: {is} {what}, over the budget of {budget}");
            }
        }
    }
    assert_eq!(rows.len(), program::ALL.len(), "docs/program-budget.md has a row too many");
    assert!(
        over.is_empty(),
        "{over}where the growth is meant, set new budgets with `{UPDATE}=1 cargo xtask test budget` and say why in \
         the commit"
    );
}

#[test]
fn the_table_is_read_as_it_is_written() {
    let old = "Text measured, on Linux 2.4 for x86-64.\n\n| program | old |\n";
    let text = updated(old, &[("a", [100, 2000, 3001]), ("b", [1, 2, 3])]);
    assert_eq!(measured_on(&text), running_on());
    assert!(text.contains(" for x86-64.\n\n| program | verified"), "{text}");
    assert_eq!((verifier_budget(&text, 7), verifier_budget(old, 7)), (7, ANYWHERE));
    let rows = rows(&text);
    assert_eq!(rows[0], ("a".to_owned(), [100, 2000, 3001], [200, 3000, 4600]));
    assert_eq!(rows[1], ("b".to_owned(), [1, 2, 3], [100, 100, 100]));
}
