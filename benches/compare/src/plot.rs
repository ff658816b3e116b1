//! The load `growth` as a plot: throughput and resident memory against the number of connections.

use std::fmt::Write;

use crate::{
    load::Measurement,
    peers::BUILTIN,
    run::{Comparison, Contestant, Load, Unit},
};

const WIDTH: f64 = 1000.0;
const PANEL_WIDTH: f64 = 390.0;
const PANEL_HEIGHT: f64 = 270.0;
const TOP: f64 = 84.0;
const LEFT: [f64; 2] = [82.0, 582.0];
const LEGEND_COLUMNS: usize = 4;

/// Colours that people with any kind of sight tell apart (Okabe and Ito), the last ones repeated when they run out.
const COLOURS: [&str; 9] =
    ["#0072b2", "#56b4e9", "#1b2a6b", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#777777", "#8c564b"];

struct Line<'a> {
    name: &'a str,
    /// The place in `COLOURS`, by which a peer looks the same in both panels.
    style: usize,
    /// Connections and value.
    points: Vec<(f64, f64)>,
}

/// How values become heights, from 0 to 1.
enum Scale {
    Linear { max: f64, step: f64 },
    Log { min: f64, max: f64 },
}

pub(crate) fn svg(comparison: &Comparison) -> String {
    let Some(load) = comparison.loads.iter().find(|load| load.connections.len() > 1) else {
        return String::new();
    };
    let throughput = lines(comparison, load, |measured| measured.per_second);
    let memory = lines(comparison, load, |measured| measured.resident_mib);
    let legend_rows = throughput.len().div_ceil(LEGEND_COLUMNS);
    let height = TOP + PANEL_HEIGHT + 66.0 + 22.0 * legend_rows as f64 + 34.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <title>Echoes per second and resident memory of WebSocket servers by number of connections</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"14\" fill=\"#fff\"/>\n\
         <text x=\"28\" y=\"34\" font-size=\"18\" font-weight=\"600\">Echoes of 64 bytes, one on its way for each \
         connection</text>\n"
    );
    panel(&mut out, LEFT[0], "messages/s", &throughput, &Scale::linear(&throughput), load);
    panel(
        &mut out,
        LEFT[1],
        "resident memory of the server, MiB (log scale)",
        &memory,
        &Scale::log(&memory),
        load,
    );
    legend(&mut out, &throughput, TOP + PANEL_HEIGHT + 72.0);
    let _ = writeln!(
        out,
        "<text x=\"28\" y=\"{}\" font-size=\"11\" fill=\"#555\">{}; {}; {}; medians of {} × {} s, server and load on a core each</text>",
        height - 16.0,
        escape(&comparison.date),
        escape(&comparison.cpu),
        escape(&comparison.kernel),
        comparison.reps,
        comparison.secs
    );
    out + "</svg>\n"
}

/// One for each peer that measured anything, whatever it was.
fn lines<'a>(comparison: &'a Comparison, load: &Load, of: fn(&Measurement) -> Option<f64>) -> Vec<Line<'a>> {
    let line = |(at, peer): (usize, &'a Contestant)| {
        // A built-in peer looks the same in every plot, whoever else takes part.
        let style =
            BUILTIN.iter().position(|builtin| builtin.name == peer.name).unwrap_or(BUILTIN.len() + at);
        let value = |&connections: &usize| {
            let value = comparison.median(load, connections, peer, of)?;
            (value > 0.0).then_some((connections as f64, value))
        };
        let points: Vec<_> = load.connections.iter().filter_map(value).collect();
        (!points.is_empty()).then_some(Line { name: &peer.name, style, points })
    };
    comparison.peers.iter().enumerate().filter_map(line).collect()
}

fn panel(out: &mut String, left: f64, title: &str, lines: &[Line], scale: &Scale, load: &Load) {
    let (right, bottom) = (left + PANEL_WIDTH, TOP + PANEL_HEIGHT);
    let (first, last) = (load.connections[0] as f64, load.connections[load.connections.len() - 1] as f64);
    // A little room at both sides, so that no marker lies on the edge.
    let x = |value: f64| left + PANEL_WIDTH * (0.04 + 0.92 * (value / first).ln() / (last / first).ln());
    let y = |value: f64| bottom - PANEL_HEIGHT * scale.height(value);
    let _ = writeln!(out, "<text x=\"{left}\" y=\"{}\" font-weight=\"600\">{title}</text>", TOP - 14.0);
    for tick in scale.ticks() {
        let (at, label) = (y(tick), Unit::Messages.format(tick));
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"12\">{label}</text>",
            left - 8.0,
            at + 4.0
        );
    }
    for &connections in load.connections {
        let (at, label) = (x(connections as f64), Unit::Messages.format(connections as f64));
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" y1=\"{bottom}\" x2=\"{at:.1}\" y2=\"{}\" stroke=\"#222\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" font-size=\"12\">{label}</text>",
            bottom + 5.0,
            bottom + 20.0
        );
    }
    let _ = writeln!(
        out,
        "<line x1=\"{left}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\" stroke=\"#222\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\" font-size=\"12\">connections (log scale)</text>",
        left + PANEL_WIDTH / 2.0,
        bottom + 40.0
    );
    // The first ones are ours: drawn last, they lie above the others.
    for line in lines.iter().rev() {
        let points: Vec<_> = line.points.iter().map(|&(cx, cy)| (x(cx), y(cy))).collect();
        let path: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" {}/>", path.join(" "), stroke(line));
        for (x, y) in points {
            marker(out, line, x, y);
        }
    }
}

fn legend(out: &mut String, lines: &[Line], top: f64) {
    let column = (WIDTH - 56.0) / LEGEND_COLUMNS as f64;
    for (i, line) in lines.iter().enumerate() {
        let x = 28.0 + column * (i % LEGEND_COLUMNS) as f64;
        let y = top + 22.0 * (i / LEGEND_COLUMNS) as f64;
        let (end, middle, text) = (x + 30.0, x + 15.0, x + 38.0);
        let _ = writeln!(out, "<line x1=\"{x}\" y1=\"{y}\" x2=\"{end}\" y2=\"{y}\" {}/>", stroke(line));
        marker(out, line, middle, y);
        let _ = writeln!(out, "<text x=\"{text}\" y=\"{}\">{}</text>", y + 4.5, escape(line.name));
    }
}

fn colour(line: &Line) -> &'static str {
    COLOURS[line.style % COLOURS.len()]
}

/// Ours are thick, and what is no server to use is dashed.
fn stroke(line: &Line) -> String {
    let width = if line.name.starts_with("switchboard") { 2.8 } else { 1.7 };
    let dashes = if line.name == "limit" { " stroke-dasharray=\"5 4\"" } else { "" };
    format!("stroke=\"{}\" stroke-width=\"{width}\"{dashes}", colour(line))
}

/// Three shapes in turn, so that colour is not all that tells lines apart.
fn marker(out: &mut String, line: &Line, x: f64, y: f64) {
    let style = format!("fill=\"{}\" stroke=\"#fff\"", colour(line));
    let _ = match line.style % 3 {
        0 => writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" {style}/>"),
        1 => writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\" {style}/>",
            x - 4.0,
            y - 4.0
        ),
        _ => writeln!(out, "<path d=\"M{x:.1} {:.1}l5 9h-10z\" {style}/>", y - 5.5),
    };
}

impl Scale {
    fn linear(lines: &[Line]) -> Self {
        let most = values(lines).fold(1.0, f64::max);
        // Four to eight steps of 1, 2 or 5 times a power of ten.
        let power = 10_f64.powf((most / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|of| of * power).into_iter().find(|step| most / step <= 6.0);
        let step = step.unwrap_or(most);
        Self::Linear { max: (most / step).ceil() * step, step }
    }

    fn log(lines: &[Line]) -> Self {
        let (least, most) = (values(lines).fold(f64::MAX, f64::min), values(lines).fold(1.0, f64::max));
        let min = 10_f64.powf(least.min(most).log10().floor());
        Self::Log { min, max: 10_f64.powf(most.log10().ceil()).max(min * 10.0) }
    }

    fn height(&self, value: f64) -> f64 {
        match *self {
            Self::Linear { max, .. } => value / max,
            Self::Log { min, max } => (value / min).ln() / (max / min).ln(),
        }
    }

    fn ticks(&self) -> Vec<f64> {
        match *self {
            Self::Linear { max, step } => {
                (0..=(max / step).round() as u32).map(|i| f64::from(i) * step).collect()
            }
            Self::Log { min, max } => {
                let decades = (max / min).log10().round() as i32;
                let decade = |power| [1.0, 2.0, 5.0].map(|of| of * min * 10_f64.powi(power));
                (0..=decades).flat_map(decade).filter(|&tick| tick <= max * 1.001).collect()
            }
        }
    }
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|line| line.points.iter().map(|&(_, value)| value))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[f64]) -> Vec<Line<'static>> {
        let points = values.iter().map(|&value| (1.0, value)).collect();
        vec![Line { name: "a", style: 0, points }]
    }

    /// Elements that are opened are closed, and every peer that measured something is there.
    #[test]
    fn a_plot() {
        let mut comparison = Comparison::for_tests();
        comparison.peers[1].name = "a & b".into();
        for run in comparison.runs.iter_mut().filter(|run| run.peer == "switchboard-shared") {
            run.peer = "a & b".into();
        }
        let svg = svg(&comparison);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert_eq!(svg.matches("<polyline").count(), 2 * 7);
        assert!(svg.contains(">a &amp; b<") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn scales_hold_all() {
        for values in [&[3.0, 94_000.0][..], &[1.0], &[7.0, 1000.0], &[0.4, 12.0], &[]] {
            let lines = line(values);
            for scale in [Scale::linear(&lines), Scale::log(&lines)] {
                assert!(
                    values.iter().all(|&value| (0.0..=1.001).contains(&scale.height(value))),
                    "{values:?}"
                );
                let ticks = scale.ticks();
                assert!((2..=20).contains(&ticks.len()), "{ticks:?}");
                assert!(ticks.iter().all(|&tick| (0.0..=1.01).contains(&scale.height(tick))), "{ticks:?}");
            }
        }
    }
}
