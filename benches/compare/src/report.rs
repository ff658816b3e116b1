//! The comparison as Markdown: a table for each load.

use std::fmt::Write;

use crate::{
    load::Measurement,
    run::{Comparison, Contestant, Load, Outcome, Unit},
};

/// Ours are those whose names begin so; the first of them in a table is what the others are compared with.
const OURS: &str = "switchboard";

/// A failure's reason is cut after so many characters: it stands in a table.
const REASON: usize = 120;

pub(crate) fn markdown(comparison: &Comparison) -> String {
    let mut out = head(comparison);
    for load in &comparison.loads {
        let _ = write!(out, "\n## {}: {}\n\n", load.name, load.what);
        if load.connections.len() > 1 {
            out += &growth(comparison, load);
        } else {
            out += &table(comparison, load, load.connections[0]);
        }
    }
    out
}

fn head(comparison: &Comparison) -> String {
    let Comparison { date, cpu, kernel, load_average, reps, secs, server_core, load_core, .. } = comparison;
    let mut out = format!(
        "# WebSocket servers compared\n\n{date}; {cpu}; {kernel}; load average before {load_average}.\n\
         Medians of {reps} × {secs} s, server on core {server_core}, load on core {load_core}. \
         Only ratios of one comparison mean something.\n\n"
    );
    for peer in &comparison.peers {
        let versions = match &peer.versions[..] {
            [] => String::new(),
            versions => format!(" ({})", versions.join(", ")),
        };
        let _ = writeln!(out, "- {}{versions}: {}", peer.name, peer.what);
    }
    out
}

fn table(comparison: &Comparison, load: &Load, connections: usize) -> String {
    let median = |peer: &Contestant, of: fn(&Measurement) -> Option<f64>| {
        comparison.median(load, connections, peer, of)
    };
    let main =
        |peer: &Contestant| comparison.median(load, connections, peer, |measured| load.unit.of(measured));
    let ours = ours(comparison, main);
    let columns = match load.unit {
        Unit::KibEach => "threads each | idle CPU %".to_owned(),
        unit => format!("p50 µs | p99 µs | CPU µs/{}", unit.one()),
    };
    let mut out = format!("| peer | {} | {columns} |{}\n|---", load.unit.name(), ratio_title(ours));
    out += &"|--:".repeat(1 + columns.split('|').count() + usize::from(ours.is_some()));
    out += "|\n";
    for peer in &comparison.peers {
        let Some(cell) =
            cell(comparison, load, connections, peer, main(peer).map(|value| load.unit.format(value)))
        else {
            continue;
        };
        let number =
            |value: Option<f64>, digits| value.map_or(String::new(), |value| format!("{value:.digits$}"));
        let rest = match load.unit {
            Unit::KibEach => vec![
                number(median(peer, |m| Some(m.threads? as f64 / m.connections as f64)), 2),
                number(median(peer, |m| m.idle_cpu_percent), 1),
            ],
            _ => vec![
                number(median(peer, |m| m.p50_us), 0),
                number(median(peer, |m| m.p99_us), 0),
                number(median(peer, |m| m.cpu_us_each), 2),
            ],
        };
        let _ = write!(out, "| {} | {cell} | {} |", text(&peer.name), rest.join(" | "));
        if let Some((_, ours)) = ours {
            let _ = write!(
                out,
                " {} |",
                number(main(peer).filter(|&this| this > 0.0).map(|this| ours / this), 2)
            );
        }
        out.push('\n');
    }
    out
}

/// Two tables: throughput and memory against the number of connections.
fn growth(comparison: &Comparison, load: &Load) -> String {
    let mut out = String::new();
    let memory: fn(&Measurement) -> Option<f64> = |measured| measured.resident_mib;
    for (title, of) in [("messages/s", (|m| m.per_second) as fn(&Measurement) -> _), ("MiB resident", memory)]
    {
        let values = |connections| move |peer: &Contestant| comparison.median(load, connections, peer, of);
        let first = ours(comparison, values(load.connections[0])).map(|(name, _)| name);
        let note = first.map_or(String::new(), |name| format!(" (in parentheses: {name} / this)"));
        let _ = write!(out, "{title} by connections{note}:\n\n| peer |");
        for connections in load.connections {
            let _ = write!(out, " {connections} |");
        }
        let _ = writeln!(out, "\n|---{}|", "|--:".repeat(load.connections.len()));
        for peer in &comparison.peers {
            let cells: Vec<_> = load
                .connections
                .iter()
                .filter_map(|&connections| {
                    let value = values(connections)(peer);
                    let shown = value.map(|value| {
                        let shown = if value >= 1000.0 {
                            Unit::Messages.format(value)
                        } else {
                            format!("{value:.1}")
                        };
                        match ours(comparison, values(connections)) {
                            Some((_, ours)) => format!("{shown} ({:.2})", ours / value),
                            None => shown,
                        }
                    });
                    cell(comparison, load, connections, peer, shown)
                })
                .collect();
            if !cells.is_empty() {
                let _ = writeln!(out, "| {} | {} |", text(&peer.name), cells.join(" | "));
            }
        }
        out.push('\n');
    }
    out.pop();
    out
}

/// The first of ours that has a value, with it.
fn ours(comparison: &Comparison, value: impl Fn(&Contestant) -> Option<f64>) -> Option<(&str, f64)> {
    let ours = comparison.peers.iter().filter(|peer| peer.name.starts_with(OURS));
    ours.filter_map(|peer| Some((peer.name.as_str(), value(peer)?))).next()
}

fn ratio_title(ours: Option<(&str, f64)>) -> String {
    ours.map_or(String::new(), |(name, _)| format!(" {name} / this |"))
}

/// The value, or why there is none; nothing for a peer that took no part.
fn cell(
    comparison: &Comparison,
    load: &Load,
    connections: usize,
    peer: &Contestant,
    value: Option<String>,
) -> Option<String> {
    let last = comparison.outcomes(load, connections, peer).last()?;
    Some(match (last, value) {
        (Outcome::Failed(why), _) => {
            let why: String = why.chars().take(REASON).collect();
            format!("**failed**: {}", text(&why))
        }
        (Outcome::Measured(_), value) => value.unwrap_or_default(),
    })
}

/// What stands in a cell must not end it.
fn text(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of a table have as many cells as its head.
    #[test]
    fn tables() {
        let mut comparison = Comparison::for_tests();
        let failed = comparison.runs.iter_mut().find(|run| run.peer == "limit" && run.load == "echo64");
        failed.unwrap().outcome = Outcome::Failed("a | b\nc".into());
        let markdown = markdown(&comparison);
        assert!(markdown.contains("**failed**: a \\| b c"), "{markdown}");
        assert!(markdown.contains("| switchboard | 10,909 | 50 | 90 |"), "{markdown}");
        let mut cells = 0;
        for line in markdown.lines() {
            let count = line.replace("\\|", "").matches('|').count();
            assert!(count == 0 || cells == 0 || count == cells, "{line}");
            cells = count;
        }
    }
}
