//! `gateway bench plot`: what `scaling` measured, as SVG. Two panels, throughput and CPU time for each message
//! over the number of pairs; one line for each number of workers, with the lowest and the highest round.
//!
//! It paints its own ground, and has colours for light and for dark: pages embed it as an image, which knows
//! what the reader's system prefers, but not what is behind it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::BenchError;
use super::scaling::{Point, ScalingReport, Spread};
use crate::cli::BenchPlot;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 370.0;
/// Of one panel's axes.
const PANEL: (f64, f64) = (330.0, 230.0);
const TOP: f64 = 76.0;
/// The left ends of the panels' axes.
const LEFT: [f64; 2] = [70.0, 500.0];
/// How many lines have colours of their own; further ones begin anew.
const COLOURS: usize = 4;
/// Ticks of a vertical axis, about.
const TICKS: f64 = 5.0;

const STYLE: &str = "
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 14px; font-weight: 600; }
  .ground { fill: #ffffff; }
  .grid { stroke: #d8dee4; stroke-width: 1; }
  .axis { stroke: #57606a; stroke-width: 1; }
  .line { fill: none; stroke-width: 2; }
  .bar { stroke-width: 1; }
  .limited { fill: #ffffff; }
  .c0 { stroke: #0969da; } .c1 { stroke: #bc4c00; } .c2 { stroke: #1a7f37; } .c3 { stroke: #8250df; }
  .f0 { fill: #0969da; } .f1 { fill: #bc4c00; } .f2 { fill: #1a7f37; } .f3 { fill: #8250df; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .ground, .limited { fill: #0d1117; }
    .grid { stroke: #30363d; }
    .axis { stroke: #8b949e; }
    .c0 { stroke: #58a6ff; } .c1 { stroke: #f0883e; } .c2 { stroke: #3fb950; } .c3 { stroke: #bc8cff; }
    .f0 { fill: #58a6ff; } .f1 { fill: #f0883e; } .f2 { fill: #3fb950; } .f3 { fill: #bc8cff; }
  }
";

/// Reads what `scaling` wrote, and writes the picture.
pub(super) fn plot(typed: &BenchPlot) -> Result<(), BenchError> {
    let failed = |path: &Path, reason: String| BenchError::Plot { path: path.display().to_string(), reason };
    let BenchPlot { from, output } = typed;
    let json = fs::read_to_string(from).map_err(|error| failed(from, error.to_string()))?;
    let report: ScalingReport = serde_json::from_str(&json)
        .map_err(|error| failed(from, format!("expected the JSON of `gateway bench scaling`: {error}")))?;
    if report.points.is_empty() || report.points.iter().any(|point| point.pairs == 0) {
        return Err(failed(from, "expected points with 1 pair or more".to_owned()));
    }
    if !report.is_whole {
        return Err(failed(
            from,
            "expected all cases, but something failed or interrupted it; measure again".to_owned(),
        ));
    }
    if !report.passed {
        return Err(failed(
            from,
            "expected measurements that all passed their checks; measure again".to_owned(),
        ));
    }
    fs::write(output, svg(&report)).map_err(|error| failed(output, error.to_string()))
}

/// The picture of a report with at least one point.
fn svg(report: &ScalingReport) -> String {
    let mut out = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">
<title>Throughput and CPU time for each message by the number of pairs of services</title>
<style>{STYLE}</style>
<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>
"#
    );
    let panels: [(&str, &str, Figure); 2] = [
        ("Throughput", "thousand messages/s", |point| point.messages_per_s.scaled(1e-3)),
        ("Gateway CPU", "µs for each message", |point| point.gateway_cpu_us_per_message),
    ];
    for (left, (title, unit, figure)) in LEFT.into_iter().zip(panels) {
        panel(&mut out, report, left, title, unit, figure);
    }
    legend(&mut out, report);
    out.push_str("</svg>\n");
    out
}

/// What one panel shows of a point.
type Figure = fn(&Point) -> Spread;

fn panel(out: &mut String, report: &ScalingReport, left: f64, title: &str, unit: &str, figure: Figure) {
    let highest = report.points.iter().map(|point| figure(point).max).fold(0.0, f64::max);
    let axes = Axes::new(report, left, highest);
    let (width, bottom) = (PANEL.0, TOP + PANEL.1);
    text(out, left, TOP - 14.0, "start", "title", &format!("{title}, {unit}"));
    for tick in 0..=axes.ticks {
        let value = f64::from(tick) * axes.step;
        let y = axes.y(value);
        line(out, "grid", (left, y), (left + width, y));
        text(out, left - 8.0, y + 4.0, "end", "tick", &number(value));
    }
    line(out, "axis", (left, bottom), (left + width, bottom));
    for pairs in axes.pairs.clone() {
        let x = axes.x(pairs);
        line(out, "axis", (x, bottom), (x, bottom + 5.0));
        text(out, x, bottom + 20.0, "middle", "tick", &number(f64::from(pairs)));
    }
    text(out, left + width / 2.0, bottom + 42.0, "middle", "label", "pairs of services");
    for (colour, workers) in workers(report).into_iter().enumerate() {
        let points = report.points.iter().filter(|point| point.workers == workers);
        curve(out, &axes, colour % COLOURS, points, figure);
    }
}

fn curve<'a>(
    out: &mut String,
    axes: &Axes,
    colour: usize,
    points: impl Iterator<Item = &'a Point>,
    figure: Figure,
) {
    let mut points: Vec<&Point> = points.collect();
    points.sort_by_key(|point| point.pairs);
    let place = |point: &&Point| format!("{:.1},{:.1}", axes.x(point.pairs), axes.y(figure(point).median));
    let places: Vec<String> = points.iter().map(place).collect();
    put(out, format_args!(r#"<polyline class="line c{colour}" points="{}"/>"#, places.join(" ")));
    for point in points {
        let (x, Spread { median, min, max }) = (axes.x(point.pairs), figure(point));
        line(out, &format!("bar c{colour}"), (x, axes.y(min)), (x, axes.y(max)));
        let fill = if is_limited(point) { "limited".to_owned() } else { format!("f{colour}") };
        put(
            out,
            format_args!(
                r#"<circle class="{fill} c{colour}" cx="{x:.1}" cy="{:.1}" r="4"/>"#,
                axes.y(median)
            ),
        );
    }
}

fn legend(out: &mut String, report: &ScalingReport) {
    let mut x = LEFT[0];
    for (colour, workers) in workers(report).into_iter().enumerate() {
        let colour = colour % COLOURS;
        line(out, &format!("line c{colour}"), (x, 28.0), (x + 26.0, 28.0));
        let word = if workers == 1 { "worker" } else { "workers" };
        text(out, x + 32.0, 32.0, "start", "legend", &format!("{workers} {word}"));
        x += 110.0;
    }
    let ScalingReport { size_bytes, rounds, seconds, cores, .. } = report;
    let mut note =
        format!("{size_bytes} bytes, median of {rounds} × {seconds} s, {cores} cores shared with the load");
    if report.points.iter().any(is_limited) {
        note.push_str("; hollow: the load was the limit, or no core was free");
    }
    text(out, x, 32.0, "start", "legend", &note);
}

/// Whether the gateway may have done more, in some round.
fn is_limited(point: &Point) -> bool {
    point.rounds_limited_by_generator + point.rounds_without_free_core > 0
}

/// Where things are in one panel.
struct Axes {
    left: f64,
    /// Ticks of the horizontal axis, which is logarithmic.
    pairs: BTreeSet<u32>,
    /// Between two ticks of the vertical axis, which begins at 0, and how many there are above.
    step: f64,
    ticks: u32,
}

impl Axes {
    fn new(report: &ScalingReport, left: f64, highest: f64) -> Self {
        let step = step(highest);
        let ticks = (1..100).find(|ticks| f64::from(*ticks) * step >= highest).unwrap_or(100);
        Self { left, pairs: report.points.iter().map(|point| point.pairs).collect(), step, ticks }
    }

    fn x(&self, pairs: u32) -> f64 {
        let logarithm = |pairs: Option<&u32>| f64::from(*pairs.unwrap_or(&1)).log2();
        let (first, last) = (logarithm(self.pairs.first()), logarithm(self.pairs.last()));
        let share = if last > first { (f64::from(pairs).log2() - first) / (last - first) } else { 0.5 };
        // Not at the very ends: the points there would stand on the axes.
        self.left + 16.0 + share * (PANEL.0 - 32.0)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + PANEL.1 * (1.0 - value / (f64::from(self.ticks) * self.step))
    }
}

/// 1, 2 or 5 times a power of ten, so that there are about as many ticks as there should be.
fn step(highest: f64) -> f64 {
    if highest <= 0.0 {
        return 1.0;
    }
    let rough = highest / TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough)
}

fn workers(report: &ScalingReport) -> BTreeSet<u32> {
    report.points.iter().map(|point| point.workers).collect()
}

/// With commas, and with decimals only where it has some.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let decimals = decimals.trim_end_matches('0');
    if decimals.is_empty() { grouped } else { format!("{grouped}.{decimals}") }
}

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    put(out, format_args!(r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#));
}

/// `content` has neither `<` nor `&`.
fn text(out: &mut String, x: f64, y: f64, anchor: &str, class: &str, content: &str) {
    put(
        out,
        format_args!(
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{content}</text>"#
        ),
    );
}

fn put(out: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(out, "{element}").expect("a String takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64) -> Spread {
        Spread { median, min: median * 0.9, max: median * 1.1 }
    }

    fn point(workers: u32, pairs: u32, limited: u32) -> Point {
        Point {
            workers,
            pairs,
            services: 2 * pairs,
            window_messages: 64,
            messages_per_s: spread(1e6),
            gateway_cpu_us_per_message: spread(0.5),
            gateway_cpu_percent: spread(50.0),
            generator_cpu_us_per_message: spread(0.3),
            others_cpu_percent: spread(5.0),
            rounds_measured: 3,
            rounds_limited_by_generator: limited,
            rounds_without_free_core: 0,
        }
    }

    fn report(points: Vec<Point>) -> ScalingReport {
        ScalingReport {
            bench: "scaling".to_owned(),
            size_bytes: 256,
            seconds: 2.0,
            rounds: 3,
            cores: 2,
            generator_threads: 1,
            points,
            is_whole: true,
            passed: true,
        }
    }

    #[test]
    fn each_case_is_a_point_in_both_panels_and_each_number_of_workers_a_line() {
        let points = [1, 2].into_iter().flat_map(|workers| [1, 8, 64].map(|pairs| point(workers, pairs, 0)));
        let svg = svg(&report(points.collect()));
        assert!(roxmltree::Document::parse(&svg).is_ok(), "{svg}");
        assert_eq!((svg.matches("<circle").count(), svg.matches("<polyline").count()), (12, 4), "{svg}");
        for text in
            ["thousand messages/s", "µs for each message", "pairs of services", "1 worker<", "2 workers<"]
        {
            assert!(svg.contains(text), "no {text} in {svg}");
        }
        assert!(!svg.contains("hollow") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_point_that_the_load_or_the_machine_limited_is_hollow() {
        let full = Point { rounds_without_free_core: 1, ..point(1, 64, 0) };
        let svg = svg(&report(vec![point(1, 1, 1), point(1, 8, 0), full]));
        assert_eq!(svg.matches(r#"<circle class="limited"#).count(), 4, "{svg}");
        assert!(svg.contains("hollow: the load was the limit, or no core was free"));
    }

    #[test]
    fn one_point_alone_stands_in_the_middle() {
        let svg = svg(&report(vec![point(1, 8, 0)]));
        assert!(svg.contains(r#"cx="235.0""#) && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn ticks_are_round_numbers() {
        for (highest, expected) in [(0.0, 1.0), (4.6, 1.0), (0.93, 0.2), (1340.0, 500.0), (2000.0, 500.0)] {
            assert!((step(highest) - expected).abs() < 1e-9, "{highest}: {}", step(highest));
        }
        assert_eq!(
            [number(0.0), number(1234.5), number(0.25), number(4096.0)],
            ["0", "1,234.5", "0.25", "4,096"]
        );
    }
}
