//! What is written, read back.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::rounds::Disagreement;

fn samples(system: &str, factor: f64) -> Samples {
    let round = |wobble: f64| Metric::ALL.into_iter().map(|metric| (metric, factor * wobble)).collect();
    Samples { system: system.to_owned(), rounds: [1.0, 0.9, 1.2].map(round).into() }
}

/// Two wires, four systems, and a round discarded on one of them.
fn report() -> Report {
    let on = |wire, discarded| OnWire {
        wire,
        samples: vec![
            samples("bare", 20.0),
            samples("host-gw", 16.0),
            samples("ovs-gre", 0.5),
            samples("overlayd-auto", 19.0),
        ],
        kept: 3,
        discarded,
        failed: Vec::new(),
        described: vec![("ovs-gre".to_owned(), "3.1.0, userspace datapath".to_owned())],
    };
    let why = Disagreement { metric: Metric::RrPerS, first: 20_000.0, last: 15_000.0 };
    let discard = Discard { round: 2, why: vec![why] };
    let why = "no dockerd <here> & now".to_owned();
    Report {
        wires: vec![on(Wire::Veth, vec![discard]), on(Wire::Mtu, Vec::new())],
        machine: Machine { cpu: "AMD EPYC, 2 CPUs".to_owned(), ..Machine::default() },
        seconds: 2,
        missing: vec![Failure { system: "docker-overlay".to_owned(), why }],
    }
}

fn json() -> Vec<Value> {
    serde_json::from_str(&serde_json::to_string(&elements(&report())).unwrap()).unwrap()
}

#[test]
fn medians() {
    let of = |values: &[f64]| Spread::of(values.to_vec());
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[3.0]), Some(Spread { median: 3.0, min: 3.0, max: 3.0, runs: 1 }));
    assert_eq!(of(&[3.0, 1.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0, runs: 2 }));
    assert_eq!(of(&[9.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 9.0, runs: 3 }));
}

proptest! {
    #[test]
    fn half_lie_on_each_side_of_a_median(values in prop::collection::vec(-1e9..1e9_f64, 1..50)) {
        let Spread { median, min, max, runs } = Spread::of(values.clone()).unwrap();
        let below = values.iter().filter(|value| **value < median).count();
        let above = values.iter().filter(|value| **value > median).count();
        prop_assert!(below <= runs / 2 && above <= runs / 2 && min <= median && median <= max);
        prop_assert!(values.contains(&min) && values.contains(&max) && runs == values.len());
    }

    #[test]
    fn three_digits_tell_enough(value in 0.001..1e6_f64) {
        let shown: f64 = table::number(value).parse().unwrap();
        prop_assert!((shown - value).abs() <= (value * 0.006).max(0.000_51), "{} is shown as {}", value, shown);
    }
}

#[test]
fn json_has_the_same_keys_in_every_element() {
    let json = json();
    assert_eq!(json.len(), 2 * (4 * Metric::ALL.len() + 1));
    for element in &json {
        for key in ["median", "min", "max", "runs", "discarded"] {
            assert!(element[key].is_number(), "{key} of {element}");
        }
        assert!(["veth", "mtu"].contains(&element["wire"].as_str().unwrap()), "{element}");
        let told = element["metric"] == "discarded_rounds";
        assert_eq!(element.as_object().unwrap().len(), if told { 9 } else { 8 }, "{element}");
    }
}

#[test]
fn json_tells_figures_and_discards() {
    let json = json();
    let find = |wire: &str, system: &str, metric: &str| {
        let same = |e: &&Value| e["wire"] == wire && e["system"] == system && e["metric"] == metric;
        json.iter().find(same).unwrap().clone()
    };
    let figure = serde_json::json!({"wire": "veth", "system": "overlayd-auto", "metric": "tcp1_gbps",
        "median": 19.0, "min": 19.0 * 0.9, "max": 19.0 * 1.2, "runs": 3, "discarded": 1});
    assert_eq!(find("veth", "overlayd-auto", "tcp1_gbps"), figure);
    let discards = find("veth", "bare", "discarded_rounds");
    assert_eq!((&discards["median"], &discards["runs"]), (&1.0.into(), &4.into()));
    let round = serde_json::json!({"round": 2, "metric": "rr_per_s", "first": 20_000.0, "last": 15_000.0, "limit": 0.2});
    assert_eq!(discards["rounds"], Value::Array(vec![round]));
    assert_eq!(find("mtu", "bare", "discarded_rounds")["rounds"], Value::Array(Vec::new()));
}

#[test]
fn plots_are_xml_with_a_bar_for_each_system_and_wire() {
    let mut report = report();
    report.wires[0].samples[1].system = "a <b> & \"c\"".to_owned();
    for metric in Metric::ALL {
        let svg = bars::plot(&report, metric);
        let xml = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{error}\n{svg}"));
        let bars: Vec<_> = xml.descendants().filter(|node| node.has_tag_name("rect")).collect();
        assert_eq!(bars.len(), 8);
        let number =
            |node: &roxmltree::Node<'_, '_>, name| node.attribute(name).unwrap().parse::<f64>().unwrap();
        let [bare, ours] = [0, 3].map(|index| number(&bars[index], "width"));
        assert!((bare * 0.95 - ours).abs() < 0.2, "{bare} {ours}");
        // The longest line, to the largest run, ends where the bars' room ends.
        let lines = xml.descendants().filter(|node| node.has_tag_name("line"));
        let farthest = lines.map(|line| number(&line, "x2")).fold(0.0, f64::max);
        assert!((farthest - 610.0).abs() < 0.2, "{farthest}");
        assert!(xml.descendants().any(|node| node.text() == Some("a <b> & \"c\"")), "{svg}");
    }
}

#[test]
fn the_page_has_a_table_for_each_wire_and_says_what_is_missing() {
    let page = markdown::page(&report());
    for part in [
        "## veth wire",
        "## mtu wire",
        "20.0 [18.0-24.0]",
        "3 rounds kept, 1 discarded; round 2: the bare host's rr_per_s was 20000 before the others and 15000 after them, limit 20 %.",
        "3 rounds kept, 0 discarded.",
        "![TCP, 1 stream: Gbit/s](benchmarks/tcp1_gbps.svg)",
        "nothing is claimed\nover it",
        "| ovs-gre (userspace) |",
        "**docker-overlay** was not measured: no dockerd",
        "AMD EPYC, 2 CPUs",
    ] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    let ratio = page.lines().skip_while(|line| !line.contains("ratio to bare")).nth(4).unwrap();
    let cells: Vec<_> = ratio.split('|').map(str::trim).collect();
    assert_eq!(cells[1..4], ["overlayd-auto", "0.95", "0.95"], "{ratio}");
    assert!(!page.contains("ratio to kernel-vxlan"), "it was not measured\n{page}");
    let mut report = report();
    report.wires.iter_mut().for_each(|wire| wire.described.clear());
    assert!(!markdown::page(&report).contains("Open vSwitch"));
}

#[test]
fn the_summary_ends_with_one_table_of_all_that_was_measured() {
    let mut report = report();
    for samples in report.wires.iter_mut().flat_map(|wire| &mut wire.samples) {
        samples.rounds.iter_mut().for_each(|round| round.retain(|metric, _| *metric != Metric::CrrPerS));
    }
    let summary = report.summary();
    let ratios = summary.trim_end().split("\n\n").next().unwrap();
    assert!(
        ratios.contains("host-gw") && !ratios.contains("ovs-gre"),
        "nothing is claimed over it\n{ratios}"
    );
    let last: Vec<_> = summary.trim_end().rsplit("\n\n").next().unwrap().lines().collect();
    assert_eq!(last.len(), 2 + 8, "{summary}");
    assert!(last[0].contains("tcp8_gbps") && !last[0].contains("crr_per_s"), "{summary}");
    assert!(
        last.iter().all(|line| line.starts_with('|') && line.chars().count() == last[0].len()),
        "{summary}"
    );
}

#[test]
fn files_are_those_of_their_directorys_owner() {
    let dir = tempfile::tempdir().unwrap();
    report().write_docs(dir.path()).unwrap();
    report().write_json(&dir.path().join("run.json")).unwrap();
    let owner = |path: &str| {
        use std::os::unix::fs::MetadataExt as _;
        dir.path().join(path).metadata().unwrap().uid()
    };
    assert!(
        ["benchmarks.md", "run.json", "benchmarks/rr_p99_us.svg"].iter().all(|path| owner(path) == owner(""))
    );
    assert!(report().write_json(&dir.path().join("none/run.json")).is_err());
}

#[test]
fn a_wire_of_which_no_round_was_kept_is_in_no_table() {
    let mut report = report();
    let nothing = |wire: &mut OnWire| {
        wire.kept = 0;
        wire.samples.iter_mut().for_each(|samples| samples.rounds.clear());
    };
    nothing(&mut report.wires[0]);
    let summary = report.summary();
    assert!(summary.contains("| mtu ") && !summary.contains("| veth "), "{summary}");
    nothing(&mut report.wires[1]);
    assert_eq!(report.summary(), "no round was kept: there are no figures\n");
    assert_eq!(elements(&report).len(), 2);
}
