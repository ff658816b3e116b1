//! The file of `--config`: which of its keys are options, and whether their values can be. All that is wrong is told at once.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::Command;

use super::{
    alike,
    items::{Item, Mistake, Type, items},
    names::{Kind, Name, commands},
};
use crate::command::small_file;

/// Bytes of the largest file that is read.
const LONGEST: u64 = 1024 * 1024;

/// So many mistakes are told.
const MISTAKES: usize = 20;

/// Header lines by which one proves who one is.
const SECRET_HEADERS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    entries: Vec<Entry>,
    pub(super) warnings: Vec<String>,
}

/// An option that is set.
#[derive(Debug)]
pub(super) struct Entry {
    name: Name,
    pub(super) line: usize,
    pub(super) values: Vec<String>,
}

/// What can be set.
struct Known {
    name: Name,
    kind: Kind,
}

impl File {
    /// What the file has for the options of this program.
    ///
    /// # Errors
    /// A line for each thing that is wrong.
    pub(super) fn read(path: &Path, root: &Command) -> Result<Self, String> {
        let (text, mode) = load(path)
            .map_err(|e| format!("the file of --config, {}, cannot be read: {e}", path.display()))?;
        let (entries, mistakes) = entries(&text, &known(root));
        if !mistakes.is_empty() {
            let mut lines: Vec<_> = mistakes
                .iter()
                .take(MISTAKES)
                .map(|mistake| format!("{}:{}: {}", path.display(), mistake.line, mistake.text))
                .collect();
            if mistakes.len() > MISTAKES {
                lines.push(format!("and {} more", mistakes.len() - MISTAKES));
            }
            return Err(lines.join("\n       ")); // below what is behind "error: "
        }
        let warnings = entries
            .iter()
            .filter(|entry| mode & 0o044 != 0 && entry.has_secret())
            .map(|entry| {
                format!(
                    "{}: its mode is {:o}, so that others can read the secret of {} in line {}: chmod 600 it, and replace the secret",
                    path.display(),
                    mode & 0o777,
                    entry.name,
                    entry.line
                )
            })
            .collect();
        Ok(Self { path: path.to_owned(), entries, warnings })
    }

    pub(super) fn entry(&self, name: &Name) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == *name)
    }
}

impl Entry {
    fn has_secret(&self) -> bool {
        let is_secret = |value: &String| match self.name.key.as_str() {
            "header" => {
                let name = value.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
                SECRET_HEADERS.contains(&name.as_str())
            }
            _ => value
                .split_once("://")
                .is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@'))),
        };
        self.values.iter().any(is_secret)
    }
}

/// What is in it, and its mode.
fn load(path: &Path) -> std::io::Result<(String, u32)> {
    let file = small_file::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let text = small_file::read_text(&file, LONGEST, small_file::PATIENCE)?;
    if text.len() as u64 > LONGEST {
        return Err(std::io::Error::other("it is too long for options"));
    }
    Ok((text, mode))
}

fn known(root: &Command) -> Vec<Known> {
    let all = commands(root).flat_map(|(command, options)| {
        let named = move |arg| Some(Known { name: Name::of(root, command, arg)?, kind: Kind::of(arg) });
        options.get_arguments().filter_map(named)
    });
    all.collect()
}

fn entries(text: &str, known: &[Known]) -> (Vec<Entry>, Vec<Mistake>) {
    let (items, mut mistakes) = items(text);
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        let line = item.line;
        let earlier = |name: &Name| entries.iter().find(|entry| entry.name == *name).map(|entry| entry.line);
        let checked = find(&item.path, known).and_then(|Known { name, kind }| match earlier(name) {
            Some(line) => Err(format!("{name} is in line {line} already")),
            None => Ok(Entry { name: name.clone(), line, values: values(name, *kind, item)? }),
        });
        match checked {
            Ok(entry) => entries.push(entry),
            Err(text) => mistakes.push(Mistake { line, text }),
        }
    }
    mistakes.sort_by_key(|mistake| mistake.line);
    (entries, mistakes)
}

fn find<'a>(path: &[String], known: &'a [Known]) -> Result<&'a Known, String> {
    let (table, key) = match path {
        [key] => (None, key),
        [table, key] => (Some(table), key),
        _ => return Err(format!("{} is no option", path.join("."))),
    };
    let is_it = |known: &&Known| known.name.table.as_ref() == table && known.name.key == *key;
    known.iter().find(is_it).ok_or_else(|| unknown(table.map(String::as_str), key, known))
}

/// That there is no such option, and which one may be meant.
fn unknown(table: Option<&str>, key: &str, known: &[Known]) -> String {
    let there = match table {
        Some("serve") if known.iter().any(|known| known.name.table.is_none() && known.name.key == key) => {
            return format!(
                "{key} is an option of serve: it stands at the top of the file, above all tables"
            );
        }
        Some(table) if known.iter().all(|known| known.name.table.as_deref() != Some(table)) => {
            return format!("there is no command {table}, whose options stand below [{table}]");
        }
        Some(table) => format!("there is no option {key} of {table}"),
        None => format!("there is no option {key}"),
    };
    let wanted = key.replace('_', "-").to_lowercase();
    let here = known.iter().filter(|known| known.name.table.as_deref() == table);
    if let Some(meant) = alike(&wanted, here.map(|known| known.name.key.as_str())) {
        return format!("{there}; did you mean {meant}?");
    }
    match known.iter().find(|known| known.name.key == key) {
        Some(Known { name, .. }) if name.table.is_some() => format!("{there}; there is {name}"),
        Some(_) => format!("{there}; it stands at the top of the file, above all tables"),
        None => there,
    }
}

/// The values of an item, if it can have them.
fn values(name: &Name, kind: Kind, item: Item) -> Result<Vec<String>, String> {
    let (types, values): (Vec<_>, Vec<_>) = item.scalars.into_iter().unzip();
    let key = &name.key;
    let first = values.first().cloned().unwrap_or_default();
    let is_number = match kind {
        Kind::Flag if !item.is_array && types == [Type::Bool] => return Ok(values),
        Kind::Flag => return Err(format!("{key} is true or false, without quotes: {key} = true")),
        Kind::One { .. } if item.is_array => {
            return Err(format!("{key} has one value, and no array: {key} = {}", quoted(&first)));
        }
        Kind::One { is_number } | Kind::Many { is_number, .. } => is_number,
    };
    let fits = |kind: &Type| *kind == Type::Text || is_number && *kind == Type::Number;
    match types.iter().position(|kind| !fits(kind)) {
        None => Ok(values),
        Some(_) if is_number => {
            Err(format!("{key} is a number, or a text in quotes: {key} = 5, or {key} = \"5\""))
        }
        Some(at) if item.is_array => {
            Err(format!("{key} is an array of texts, in quotes: {key} = [{}]", quoted(&values[at])))
        }
        Some(at) => Err(format!("{key} is a text, in quotes: {key} = {}", quoted(&values[at]))),
    }
}

/// As a file has it.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::command::cli::Cli;

    fn read(text: &str) -> Result<Vec<(String, Vec<String>)>, Vec<String>> {
        let (entries, mistakes) = entries(text, &known(&<Cli as CommandFactory>::command()));
        if mistakes.is_empty() {
            Ok(entries.into_iter().map(|entry| (entry.name.to_string(), entry.values)).collect())
        } else {
            Err(mistakes.iter().map(|mistake| format!("{}: {}", mistake.line, mistake.text)).collect())
        }
    }

    #[test]
    fn options_have_the_values_that_they_take() {
        let text = "listen = [\"a:1\", \"b:2\"]\nwww = \"x\"\nmax-connections = 7\nmax-message-size = \"2M\"\nhost = \"one\"\n\
                    [list]\njson = true\n[connect]\ntimeout = 0.5\n";
        let read = read(text).unwrap();
        let read: Vec<_> =
            read.iter().map(|(name, values)| format!("{name}: {}", values.join(" "))).collect();
        let expected = [
            "listen: a:1 b:2",
            "www: x",
            "max-connections: 7",
            "max-message-size: 2M",
            "host: one",
            "json below [list]: true",
            "timeout below [connect]: 0.5",
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_wrong_is_told_with_what_to_do() {
        for (text, told) in [
            ("max-conections = 1", "1: there is no option max-conections; did you mean max-connections?"),
            ("max_connections = 1", "1: there is no option max_connections; did you mean max-connections?"),
            ("Listen = ['a:1']", "did you mean listen?"),
            ("json = true", "there is no option json; there is json below ["),
            (
                "[serve]\nlisten = ['a:1']",
                "2: listen is an option of serve: it stands at the top of the file",
            ),
            ("[connect]\nwww = 'x'", "no option www of connect; it stands at the top of the file"),
            ("[nonsense]\nx = 1", "2: there is no command nonsense"),
            ("help = true", "there is no option help"),
            ("config = 'x'", "there is no option config"),
            ("a.b.c = 1", "a.b.c is no option"),
            ("www = 5", "1: www is a text, in quotes: www = \"5\""),
            ("listen = 8080", "listen is a text, in quotes: listen = \"8080\""),
            ("listen = ['a:1', true]", "listen is an array of texts, in quotes: listen = [\"true\"]"),
            ("www = ['a', 'b']", "www has one value, and no array: www = \"a\""),
            (
                "max-connections = true",
                "max-connections is a number, or a text in quotes: max-connections = 5",
            ),
            ("[list]\njson = 'yes'", "2: json is true or false, without quotes: json = true"),
            ("[list]\njson = [true]", "json is true or false"),
            ("www = 'a'\n\nwww = 'b'", "3: www is in line 1 already"),
            ("www = 1979-05-27", "www is a text"),
        ] {
            let mistakes = read(text).expect_err(text);
            assert!(mistakes.len() == 1 && mistakes[0].contains(told), "{text}: {mistakes:?}");
        }
        let two = read("a-b = 1\nwww = 5\n").unwrap_err();
        assert!(two.len() == 2 && two[0].starts_with("1: ") && two[1].starts_with("2: "), "{two:?}");
    }

    #[test]
    fn quotes_keep_what_is_in_them() {
        let text = "a\"b\\c\nd\u{1}ä";
        let (items, mistakes) = items(&format!("x = {}", quoted(text)));
        assert!(mistakes.is_empty() && items[0].scalars == [(Type::Text, text.to_owned())], "{items:?}");
    }
}
