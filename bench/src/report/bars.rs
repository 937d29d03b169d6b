//! A plot of one metric: a bar for each system's median, with a line from the smallest to the largest run.
//!
//! Written by hand: bars, lines and words are all that it takes. The background is the page's own, and every colour reads
//! on a light one and on a dark one.

use std::fmt::Write as _;

use super::{
    OnWire, Report, Spread,
    table::{label, number},
};
use crate::measure::Metric;

const WIDTH: f64 = 760.0;
/// Where bars begin and end; names are left of it, figures right.
const LEFT: f64 = 170.0;
const RIGHT: f64 = 610.0;
const ROW: f64 = 24.0;
const BAR: f64 = 14.0;
/// Above the first panel, and above each panel's bars.
const TITLE: f64 = 34.0;
const HEADING: f64 = 26.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#7d8590}\
    .t{font-size:15px;font-weight:600}.h{font-weight:600}.n{text-anchor:end}\
    .bare{fill:#8b949e}.other{fill:#6c8ebf}.ours{fill:#1f9d77}\
    line{stroke:#c27c0e;stroke-width:1.5}";

/// The plot, as SVG.
pub(super) fn plot(report: &Report, metric: Metric) -> String {
    let panels: Vec<(&OnWire, Vec<(&str, Spread)>)> = report
        .wires
        .iter()
        .map(|wire| (wire, bars(wire, metric)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let largest = panels.iter().flat_map(|(_, bars)| bars).map(|(_, spread)| spread.max).fold(0.0, f64::max);
    let height = panels.iter().map(|(_, bars)| HEADING + bars.len() as f64 * ROW).sum::<f64>() + TITLE + 8.0;
    let better = if metric.more_is_better() { "more is better" } else { "less is better" };
    let title = escaped(&format!("{} ({better})", metric.title()));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <text class=\"t\" x=\"8\" y=\"22\">{title}</text>\n"
    );
    let mut top = TITLE;
    for (wire, bars) in panels {
        let _ = writeln!(svg, "<text class=\"h\" x=\"8\" y=\"{}\">{} wire</text>", top + 16.0, wire.wire);
        top += HEADING;
        for (system, spread) in bars {
            row(&mut svg, top, system, spread, (RIGHT - LEFT) / largest);
            top += ROW;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn bars(wire: &OnWire, metric: Metric) -> Vec<(&str, Spread)> {
    wire.systems().filter_map(|system| Some((system, wire.spread(system, metric)?))).collect()
}

fn row(svg: &mut String, top: f64, system: &str, spread: Spread, scale: f64) {
    let class = match system {
        "bare" => "bare",
        ours if ours.starts_with("overlayd") => "ours",
        _ => "other",
    };
    let (middle, bar) = (top + ROW / 2.0, top + (ROW - BAR) / 2.0);
    let x = |value: f64| LEFT + value * scale;
    let [min, median, max] = [spread.min, spread.median, spread.max].map(x);
    let _ = writeln!(
        svg,
        "<text class=\"n\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
         <rect class=\"{class}\" x=\"{LEFT}\" y=\"{bar:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\
         <line x1=\"{min:.1}\" x2=\"{max:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>",
        LEFT - 8.0,
        middle + 4.5,
        escaped(label(system)),
        median - LEFT,
    );
    for end in [min, max] {
        let (from, to) = (middle - 4.0, middle + 4.0);
        let _ = writeln!(svg, "<line x1=\"{end:.1}\" x2=\"{end:.1}\" y1=\"{from:.1}\" y2=\"{to:.1}\"/>");
    }
    let text = format!("{} [{}–{}]", number(spread.median), number(spread.min), number(spread.max));
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{text}</text>", RIGHT + 10.0, middle + 4.5);
}

/// Text as XML has it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
