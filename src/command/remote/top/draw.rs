//! A frame: two lines about the server, the table, and a line about keys.

use std::time::Duration;

use super::{
    rounds::{Rates, Round, Row},
    stats::Facts,
    view::{Sorted, View},
};
use crate::command::{
    escaped::escaped,
    remote::{
        human::{age, bytes, count, grouped, rate, round_trip},
        nodes,
        table::{Column, Layout, cut},
    },
};

const BOLD: &str = "\x1b[1m";
const REVERSED: &str = "\x1b[7m";

/// Lines that are not rows of the table: two above it, its head, and one below it.
const OTHERS: usize = 5;

/// It is said how often the server is asked, if that is less often.
const USUAL: Duration = Duration::from_millis(1500);

const COLUMNS: &[Column] = &[
    Column::left("ID", 8, 0).whole(),
    Column::left("USER", 8, 7),
    Column::left("PATH", 10, 1),
    Column::left("FROM", 9, 11),
    Column::right("IN/s", 6, 3),
    Column::right("OUT/s", 6, 2),
    Column::right("IN B/s", 7, 10),
    Column::right("OUT B/s", 8, 9),
    Column::right("QUEUE", 6, 4),
    Column::right("RTT", 6, 8),
    Column::right("IDLE", 5, 6),
    Column::right("AGE", 4, 5),
    Column::right("IN", 6, 12),
    Column::right("OUT", 6, 13),
    Column::left("AGENT", 16, 14),
];

/// Where the column of nodes is, where there are many.
const NODE: usize = 1;

/// By what the table can be sorted, and the columns where that is, where there is none of nodes.
const SORTABLE: [(Sorted, usize); 10] = [
    (Sorted::User, 1),
    (Sorted::Path, 2),
    (Sorted::In, 4),
    (Sorted::Out, 5),
    (Sorted::BytesIn, 6),
    (Sorted::BytesOut, 7),
    (Sorted::Queue, 8),
    (Sorted::RoundTrip, 9),
    (Sorted::Idle, 10),
    (Sorted::Age, 11),
];

/// Lines, each with its attributes, which fill the size at most.
pub(super) fn frame(view: &mut View, (columns, rows): (usize, usize)) -> Vec<String> {
    view.height = rows.saturating_sub(OTHERS);
    let title = apart(&title(view), &counted(view), columns);
    let second = match &view.missed {
        Some(missed) => format!("{BOLD}{}", cut(&format!(" {}; trying again", escaped(missed)), columns)),
        None => cut(&activity(view), columns),
    };
    let mut lines = vec![format!("{BOLD}{title}"), second, String::new()];
    lines.extend(table(view, columns));
    lines.truncate(rows.saturating_sub(1));
    lines.resize(rows.saturating_sub(1), String::new());
    lines.push(cut(&foot(view), columns));
    lines
}

/// Two texts, at both ends of a line.
fn apart(left: &str, right: &str, columns: usize) -> String {
    use unicode_width::UnicodeWidthStr;
    let left = cut(left, columns.saturating_sub(right.width() + 2));
    let room = columns.saturating_sub(left.width() + right.width() + 1);
    cut(&format!("{left}{}{right}", " ".repeat(room)), columns)
}

fn title(view: &View) -> String {
    let mut title = " switchboard".to_owned();
    let facts = view.round.as_ref().and_then(|round| round.facts.as_ref());
    if let Some(Facts { version, uptime, memory, node, nodes, is_cut_off, .. }) = facts {
        title += &format!(" {}, up {}", escaped(version), age(*uptime));
        if let Some(memory) = memory {
            title += &format!(", {}B", bytes(*memory));
        }
        if *nodes > 1 || *is_cut_off {
            title += &format!(", node {node} of {nodes}");
        }
        if *is_cut_off {
            title += ", Redis is not reached";
        }
    }
    title += &format!("  {}", escaped(&view.name));
    title
}

fn counted(view: &View) -> String {
    let Some(round) = &view.round else { return "asking…".into() };
    let all = round.rows.len();
    let noun = if all == 1 { "connection" } else { "connections" };
    format!("{} {noun}, {} shared", grouped(all as u64), grouped(round.totals.shared as u64))
}

/// What all of them do.
fn activity(view: &View) -> String {
    let Some(Round { totals, facts, .. }) = &view.round else { return String::new() };
    let queued = format!("queued {}", bytes(totals.queued));
    let Some(changes) = &totals.changes else { return format!(" {queued}") };
    let Rates { messages_in, messages_out, bytes_in, bytes_out } = changes.rates;
    let pushes = facts.as_ref().and_then(|facts| facts.pushes);
    let pushes = pushes.map_or_else(String::new, |pushes| format!("  pushes {}/s", rate(pushes)));
    let mut text = format!(
        " in {}/s {}B/s  out {}/s {}B/s{pushes}  {queued}  +{}/s -{}/s",
        rate(messages_in),
        bytes(bytes_in as u64),
        rate(messages_out),
        bytes(bytes_out as u64),
        rate(changes.opened),
        rate(changes.closed),
    );
    if changes.interval > USUAL {
        text += &format!("  every {}", age(changes.interval));
    }
    text
}

fn table(view: &mut View, columns: usize) -> Vec<String> {
    let Some(round) = &view.round else { return Vec::new() };
    let is_cluster = round.facts.as_ref().is_some_and(|facts| facts.nodes > 1);
    let shown = view.order.iter().skip(view.first).take(view.height);
    let mut rows: Vec<_> = shown.filter_map(|&at| round.rows.get(at)).map(cells).collect();
    let mut of_table = COLUMNS.to_vec();
    match is_cluster {
        true => of_table.insert(NODE, nodes::COLUMN),
        false => rows.iter_mut().for_each(|row| drop(row.remove(NODE))),
    }
    let place = |at: usize| at + usize::from(is_cluster);
    let layout = Layout::new(&of_table, &rows, Some(columns.saturating_sub(2)));
    view.sortable =
        SORTABLE.iter().filter(|(_, at)| layout.has(place(*at))).map(|(sorted, _)| *sorted).collect();
    let mark = if view.is_reversed { "▲" } else { "▼" };
    let sorted = SORTABLE.iter().find(|(sorted, _)| *sorted == view.sorted);
    let head = layout.marked_head(&of_table, sorted.map_or(0, |(_, at)| place(*at)), mark);
    let head = format!("{REVERSED}{}", apart(&format!(" {head}"), "", columns + 1));
    let rows = rows.iter().map(|row| format!(" {}", layout.row(&of_table, row)));
    std::iter::once(head).chain(rows).collect()
}

fn cells(row: &Row) -> Vec<String> {
    let none = || "-".to_owned();
    let info = &row.info;
    let rated = |of: fn(&Rates) -> String| row.rates.as_ref().map_or_else(none, of);
    vec![
        info.id.short().to_owned(),
        info.id.node().to_string(),
        info.user.as_deref().map_or_else(none, escaped),
        escaped(&info.path),
        info.client_address.map_or_else(|| "unix".into(), |address| address.to_string()),
        rated(|rates| rate(rates.messages_in)),
        rated(|rates| rate(rates.messages_out)),
        rated(|rates| bytes(rates.bytes_in as u64)),
        rated(|rates| bytes(rates.bytes_out as u64)),
        bytes(info.queued as u64),
        info.round_trip.map_or_else(none, round_trip),
        age(info.idle),
        age(info.age),
        count(info.messages_in),
        count(info.messages_out),
        info.user_agent.as_deref().map_or_else(none, escaped),
    ]
}

fn foot(view: &View) -> String {
    if view.is_typing {
        return format!(" /{}_   Enter keeps it, Esc shows all", escaped(&view.filter));
    }
    let of = view.order.len();
    let (first, last) = ((view.first + 1).min(of), (view.first + view.height).min(of));
    let part = format!(" {}-{} of {}", grouped(first as u64), grouped(last as u64), grouped(of as u64));
    let found =
        if view.filter.is_empty() { String::new() } else { format!(" with {:?}", escaped(&view.filter)) };
    format!("{part}{found}   q quit  s sort  r reverse  / find  PgUp PgDn")
}
