//! What an option is called outside the command line: one rule, for the environment and for files.
//!
//! Those of `serve`, which has the most, are called as they are: `--max-connections` is `SWITCHBOARD_MAX_CONNECTIONS`, and in a file
//! `max-connections`. Those of another command have its name in front: `SWITCHBOARD_LIST_JSON`, and in a file `json` below `[list]`.
//! What says where a running server is, is the same for all commands that ask it, and begins with `manage`: `SWITCHBOARD_MANAGE_CA`,
//! `manage-ca`. `check` has those of `serve`.

use std::fmt;

use clap::{Arg, ArgAction, Command};

use crate::command::remote::PLACE;

/// The name of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Of a file.
    pub(super) table: Option<String>,
    pub(super) key: String,
}

/// How many values an option takes, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Flag,
    One {
        is_number: bool,
    },
    /// `has_spaces`: they may have some in them.
    Many {
        is_number: bool,
        has_spaces: bool,
    },
}

/// Commands that have no options to speak of.
const WITHOUT: [&str; 3] = ["help", "completions", "man"];

/// The option that names the file.
pub(super) const CONFIG: &str = "config";

/// What values are called that a file may have as numbers.
const NUMBERS: [&str; 6] = ["N", "SECONDS", "SIZE", "PORT", "VERSION", "MILLIS"];

/// What those are called that may have spaces in them, so that only the ends of lines stand between two of them.
const WITH_SPACES: [&str; 4] = ["NAME: VALUE", "FILE", "DIR", "TEXT"];

impl Name {
    /// Of an option of this command; of no command, those of `serve`. `None`: it is none that is set elsewhere.
    pub(super) fn of(root: &Command, command: Option<&str>, arg: &Arg) -> Option<Self> {
        let long = arg.get_long().filter(|long| !["help", "version", CONFIG].contains(long))?;
        let table = match command {
            None | Some("serve") => None,
            Some("check") if root.get_arguments().any(|other| other.get_long() == Some(long)) => None,
            Some(_) if arg.get_help_heading() == Some(PLACE) => {
                let key = if long.starts_with("manage") { long.into() } else { format!("manage-{long}") };
                return Some(Self { table: None, key });
            }
            Some(command) => Some(command.to_owned()),
        };
        Some(Self { table, key: long.to_owned() })
    }

    /// The name of its variable.
    pub(super) fn variable(&self) -> String {
        let table = self.table.as_ref().map_or(String::new(), |table| format!("{table}_"));
        format!("SWITCHBOARD_{table}{}", self.key).replace('-', "_").to_uppercase()
    }
}

/// As one would look for it in a file.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.table {
            Some(table) => write!(f, "{} below [{table}]", self.key),
            None => f.write_str(&self.key),
        }
    }
}

impl Kind {
    pub(super) fn of(arg: &Arg) -> Self {
        let called = |names: &[&str]| {
            arg.get_value_names().is_some_and(|all| all.iter().any(|name| names.contains(&name.as_str())))
        };
        let is_number = called(&NUMBERS);
        match arg.get_action() {
            ArgAction::SetTrue => Self::Flag,
            ArgAction::Append => Self::Many { is_number, has_spaces: called(&WITH_SPACES) },
            _ => Self::One { is_number },
        }
    }
}

/// The commands, each with its name; first that without one.
pub(super) fn commands(root: &Command) -> impl Iterator<Item = (Option<&str>, &Command)> {
    let sub = root.get_subcommands().map(|command| (Some(command.get_name()), command));
    std::iter::once((None, root)).chain(sub).filter(|(name, _)| has_options(*name))
}

/// Whether its options are set elsewhere, too.
pub(super) fn has_options(command: Option<&str>) -> bool {
    command.is_none_or(|name| !WITHOUT.contains(&name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory;

    use super::*;
    use crate::command::cli::Cli;

    #[test]
    fn each_option_has_a_name_and_no_two_have_the_same() {
        let root = <Cli as CommandFactory>::command();
        let (mut of_variables, mut count) = (BTreeMap::new(), 0);
        for (command, options) in commands(&root) {
            for arg in options.get_arguments().filter(|arg| !arg.is_positional()) {
                assert!(arg.get_long().is_some(), "{command:?}: {arg} has no name that can stand elsewhere");
                let Some(name) = Name::of(&root, command, arg) else { continue };
                let variable = name.variable();
                assert!(
                    variable.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'),
                    "{variable}"
                );
                let known = of_variables.entry(variable).or_insert_with(|| name.clone());
                assert_eq!(*known, name, "two options have the variable of this one");
                count += 1;
            }
        }
        // In a file a table must not be called as an option above it.
        for name in of_variables.values() {
            assert!(name.table.is_some() || root.get_subcommands().all(|other| other.get_name() != name.key));
        }
        assert!(count > 100, "only {count} options?");
    }

    #[test]
    fn the_rule() {
        let root = <Cli as CommandFactory>::command();
        let find = |command: Option<&'static str>, long: &str| {
            let (_, options) = commands(&root).find(|(name, _)| *name == command).unwrap();
            let arg = options.get_arguments().find(|arg| arg.get_long() == Some(long)).unwrap();
            let name = Name::of(&root, command, arg);
            name.map(|name| (name.variable(), name.to_string())).unwrap_or_default()
        };
        let named = |variable: &str, key: &str| (variable.to_owned(), key.to_owned());
        assert_eq!(find(None, "max-connections"), named("SWITCHBOARD_MAX_CONNECTIONS", "max-connections"));
        assert_eq!(find(Some("check"), "listen"), find(Some("serve"), "listen"));
        assert_eq!(find(Some("check"), "json"), named("SWITCHBOARD_CHECK_JSON", "json below [check]"));
        assert_eq!(
            find(Some("connect"), "timeout"),
            named("SWITCHBOARD_CONNECT_TIMEOUT", "timeout below [connect]")
        );
        assert_eq!(find(Some("list"), "manage"), named("SWITCHBOARD_MANAGE", "manage"));
        let timeout = named("SWITCHBOARD_MANAGE_CONNECT_TIMEOUT", "manage-connect-timeout");
        assert_eq!(
            (find(Some("list"), "connect-timeout"), find(Some("top"), "connect-timeout")),
            (timeout.clone(), timeout)
        );
    }
}
