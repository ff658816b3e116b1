//! A file for `--config` with all options: those that are set as they are, the others as comments.

use std::fmt::Write;

use clap::{Arg, ArgMatches, Command, parser::ValueSource};

use super::{
    file::quoted,
    names::{Kind, Name},
};

/// Columns of the comments.
const WIDTH: usize = 100;

/// All options of `serve`: `root` has them, and `matches` what they are set to.
pub(in crate::command) fn printed(root: &Command, matches: &ArgMatches) -> String {
    let mut text = String::from(
        "# Options of switchboard serve: those without a # are set, the others as they are by default.\n",
    );
    for arg in root.get_arguments() {
        let Some(name) = Name::of(root, None, arg) else { continue };
        text.push('\n');
        comment(&arg.get_help().map(ToString::to_string).unwrap_or_default(), &mut text);
        let is_set = matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        let values = if is_set { given(arg, matches) } else { usual(arg) };
        let hash = if is_set { "" } else { "#" };
        let _ = writeln!(text, "{hash}{} = {}", name.key, value(Kind::of(arg), &values)); // a String takes all
    }
    text
}

fn given(arg: &Arg, matches: &ArgMatches) -> Vec<String> {
    let raw = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
    raw.map(|value| value.to_string_lossy().into_owned()).collect()
}

/// The default, or what stands for a value.
fn usual(arg: &Arg) -> Vec<String> {
    let default: Vec<_> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let names = || arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    if default.is_empty() { names() } else { default }
}

fn value(kind: Kind, values: &[String]) -> String {
    let text = |is_number, value: &String| match is_number && value.parse::<i64>().is_ok() {
        true => value.clone(),
        false => quoted(value),
    };
    match (kind, values) {
        (Kind::Flag, _) => "true".into(),
        (Kind::One { is_number }, [value, ..]) => text(is_number, value),
        (Kind::One { .. }, []) => quoted(""),
        (Kind::Many { is_number, .. }, values) => {
            let values: Vec<_> = values.iter().map(|value| text(is_number, value)).collect();
            format!("[{}]", values.join(", "))
        }
    }
}

/// In lines that fit.
fn comment(help: &str, text: &mut String) {
    let mut column = 0;
    for word in help.split_whitespace() {
        let length = word.chars().count() + 1;
        if column == 0 || column + length > WIDTH {
            text.push_str(if column == 0 { "#" } else { "\n#" });
            column = 1;
        }
        text.push(' ');
        text.push_str(word);
        column += length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;

    use super::{super::file::File, *};
    use crate::command::cli::Cli;

    fn print(args: &[&str]) -> String {
        let root = <Cli as CommandFactory>::command();
        let args = [&["switchboard"], args].concat();
        printed(&root, &root.clone().get_matches_from(args))
    }

    fn read(text: &str) -> File {
        let folder = std::env::temp_dir();
        let path = folder.join(format!("switchboard-printed-{}-{}", std::process::id(), text.len()));
        std::fs::write(&path, text).unwrap();
        let file = File::read(Path::new(&path), &<Cli as CommandFactory>::command());
        std::fs::remove_file(&path).unwrap();
        file.unwrap()
    }

    #[test]
    fn what_is_printed_can_be_read() {
        let text = print(&[
            "--listen",
            "a:1",
            "--listen",
            "b\"c:2",
            "--max-connections",
            "7",
            "--max-message-size",
            "2M",
        ]);
        let set: Vec<_> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let expected =
            ["listen = [\"a:1\", \"b\\\"c:2\"]", "max-connections = 7", "max-message-size = \"2M\""];
        assert_eq!(set, expected);
        read(&text);
    }

    /// With all that is a comment there, it is a file with all options, and nothing else.
    #[test]
    fn each_option_is_there() {
        let text = print(&[]);
        let all = text.lines().map(|line| match line.strip_prefix('#') {
            Some(option) if !option.starts_with(' ') => option,
            _ => line,
        });
        let all = read(&all.collect::<Vec<_>>().join("\n"));
        let root = <Cli as CommandFactory>::command();
        for name in root.get_arguments().filter_map(|arg| Name::of(&root, None, arg)) {
            assert!(all.entry(&name).is_some(), "{name} is not in {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }
}
