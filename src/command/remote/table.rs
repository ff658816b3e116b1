//! Tables: columns that fit a terminal, or, where it is none, as they are.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Between two columns.
const GAP: usize = 2;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) align: Align,
    /// What it has at least, whatever is in it.
    pub(super) least: usize,
    /// If it may be cut: to no less than this.
    pub(super) cut: Option<usize>,
    /// Where there is no room for all, those with the highest rank are left out.
    pub(super) rank: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

impl Column {
    pub(super) const fn left(name: &'static str, cut: usize, rank: u8) -> Self {
        Self { name, align: Align::Left, least: 0, cut: Some(cut), rank }
    }

    pub(super) const fn right(name: &'static str, least: usize, rank: u8) -> Self {
        Self { name, align: Align::Right, least, cut: None, rank }
    }

    /// One that is never cut.
    pub(super) const fn whole(self) -> Self {
        Self { cut: None, ..self }
    }
}

/// Which columns are shown, and how wide.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout(Vec<(usize, usize)>);

impl Layout {
    /// For these rows, on a terminal of this width, if it is one.
    pub(super) fn new(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> Self {
        let natural: Vec<usize> = columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.width());
                cells.max().unwrap_or_default().max(column.name.width()).max(column.least)
            })
            .collect();
        let all = natural.iter().copied().enumerate();
        match width {
            None => Self(all.collect()),
            Some(width) => Self(fitted(columns, all.collect(), width)),
        }
    }

    /// Whether a column is shown.
    pub(super) fn has(&self, at: usize) -> bool {
        self.0.iter().any(|(shown, _)| *shown == at)
    }

    /// The names of the columns.
    pub(super) fn head(&self, columns: &[Column]) -> String {
        self.marked_head(columns, usize::MAX, "")
    }

    /// The same, one with a mark behind it, if there is room.
    pub(super) fn marked_head(&self, columns: &[Column], marked: usize, mark: &str) -> String {
        let names: Vec<_> = columns
            .iter()
            .enumerate()
            .map(
                |(at, column)| {
                    if at == marked { format!("{}{mark}", column.name) } else { column.name.into() }
                },
            )
            .collect();
        self.line(columns, |at| &names[at])
    }

    /// A row.
    pub(super) fn row(&self, columns: &[Column], row: &[String]) -> String {
        self.line(columns, |at| row.get(at).map_or("", String::as_str))
    }

    fn line<'a>(&self, columns: &[Column], cell: impl Fn(usize) -> &'a str) -> String {
        let mut line = String::new();
        for (place, &(at, width)) in self.0.iter().enumerate() {
            if place > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let text = cut(cell(at), width);
            let room = " ".repeat(width.saturating_sub(text.width()));
            match columns[at].align {
                Align::Right => line.extend([room, text]),
                Align::Left => line.extend([text, room]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// The columns that there is room for, of those with these widths.
fn fitted(columns: &[Column], mut shown: Vec<(usize, usize)>, width: usize) -> Vec<(usize, usize)> {
    let least = |&(at, natural): &(usize, usize)| columns[at].cut.map_or(natural, |cut| natural.min(cut));
    let needed = |shown: &[(usize, usize)]| {
        shown.iter().map(least).sum::<usize>() + GAP * shown.len().saturating_sub(1)
    };
    while shown.len() > 1 && needed(&shown) > width {
        let last = shown.iter().enumerate().max_by_key(|(_, (at, _))| columns[*at].rank);
        if let Some((place, _)) = last {
            shown.remove(place);
        }
    }
    let mut spare = width.saturating_sub(needed(&shown));
    let mut widths: Vec<usize> = shown.iter().map(least).collect();
    loop {
        let wanting: Vec<usize> = (0..shown.len()).filter(|&place| widths[place] < shown[place].1).collect();
        if wanting.is_empty() || spare == 0 {
            break;
        }
        let share = (spare / wanting.len()).max(1);
        for place in wanting {
            let more = share.min(shown[place].1 - widths[place]).min(spare);
            widths[place] += more;
            spare -= more;
        }
    }
    shown.into_iter().zip(widths).map(|((at, _), width)| (at, width)).collect()
}

/// As much of a text as fits, with an ellipsis for the rest.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let mut shown = String::new();
    for c in text.chars() {
        let Some(rest) = left.checked_sub(c.width().unwrap_or_default()) else { break };
        left = rest;
        shown.push(c);
    }
    if width > 0 {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::left("ID", 0, 0).whole(),
        Column::left("PATH", 6, 2),
        Column::right("AGE", 4, 1),
        Column::left("AGENT", 8, 3),
    ];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 4]| cells.map(String::from).to_vec();
        vec![
            row(["b3kT9ZcY", "/chat/of/somebody", "5s", "curl/8"]),
            row(["x", "/日本語日本語", "100m", "Mozilla/5.0 (X11; Linux)"]),
        ]
    }

    fn drawn(width: Option<usize>) -> Vec<String> {
        let rows = rows();
        let layout = Layout::new(COLUMNS, &rows, width);
        let lines = rows.iter().map(|row| layout.row(COLUMNS, row));
        std::iter::once(layout.head(COLUMNS)).chain(lines).collect()
    }

    #[test]
    fn in_a_pipe_all_of_it_is_there() {
        assert_eq!(
            drawn(None),
            [
                "ID        PATH                AGE  AGENT",
                "b3kT9ZcY  /chat/of/somebody    5s  curl/8",
                "x         /日本語日本語      100m  Mozilla/5.0 (X11; Linux)",
            ]
        );
    }

    #[test]
    fn on_a_terminal_it_fits() {
        for width in 1..100 {
            let lines = drawn(Some(width));
            let widest = lines.iter().map(|line| line.width()).max().unwrap();
            assert!(widest <= width.max(8), "{width}: {lines:#?}");
        }
        assert_eq!(drawn(Some(100)), drawn(None));
        assert_eq!(
            drawn(Some(29)),
            [
                "ID        PATH            AGE",
                "b3kT9ZcY  /chat/of/som…    5s",
                "x         /日本語日本語  100m"
            ],
            "the last one is left out, and the path gets the room"
        );
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, width, shown) in
            [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("日本語", 4, "日…"), ("日本", 4, "日本"), ("ab", 0, "")]
        {
            assert_eq!(cut(text, width), shown);
        }
    }
}
