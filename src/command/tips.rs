//! What clap does not know to advise about a wrong command line.

use clap::{
    Command,
    builder::StyledStr,
    error::{ContextKind, ContextValue},
};

/// Adds what somebody may have meant, and leaves out what nobody else should see.
pub(super) fn with_tip(mut error: clap::Error, root: &Command) -> clap::Error {
    hide_passwords(&mut error);
    let tip = tip(&error, root);
    suggest(&mut error, tip);
    error
}

/// Adds tips, before those that are there.
pub(super) fn suggest(error: &mut clap::Error, tips: impl IntoIterator<Item = String>) {
    let mut tips: Vec<_> = tips.into_iter().map(StyledStr::from).collect();
    if tips.is_empty() {
        return;
    }
    if let Some(ContextValue::StyledStrs(others)) = error.get(ContextKind::Suggested) {
        tips.extend(others.iter().cloned());
    }
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
}

/// Of URLs: what is wrong may end in a log.
fn hide_passwords(error: &mut clap::Error) {
    for kind in [ContextKind::InvalidSubcommand, ContextKind::InvalidArg, ContextKind::InvalidValue] {
        if let Some(ContextValue::String(text)) = error.get(kind)
            && let Some(hidden) = without_password(text)
        {
            error.insert(kind, ContextValue::String(hidden));
        }
    }
}

/// A URL without its user and password. `None`: it has none.
fn without_password(text: &str) -> Option<String> {
    if let Some((scheme, rest)) = text.split_once("://")
        && let Some((_, host)) = rest.rsplit_once('@')
    {
        return Some(format!("{scheme}://…@{host}"));
    }
    let at = text.find("pass=").filter(|_| text.contains(':'))?;
    Some(format!("{}pass=…", &text[..at]))
}

fn tip(error: &clap::Error, root: &Command) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if let Some(value) = text(ContextKind::InvalidValue) {
        return of_value(text(ContextKind::InvalidArg)?, value);
    }
    let wrong = text(ContextKind::InvalidSubcommand).or(text(ContextKind::InvalidArg))?;
    of_url(wrong).or_else(|| of_option(wrong, root)).or_else(|| of_command(wrong, root))
}

/// Whoever gives a URL alone wants to connect to it.
fn of_url(wrong: &str) -> Option<String> {
    let is_one_of = |schemes: &[&str]| schemes.iter().any(|scheme| wrong.starts_with(scheme));
    let url = match wrong.strip_prefix("http") {
        Some(rest) if is_one_of(&["http://", "https://"]) => format!("ws{rest}"),
        _ if is_one_of(&["ws://", "wss://", "unix:", "ws+unix:"]) => wrong.to_owned(),
        _ => return None,
    };
    Some(format!("to connect to it: switchboard connect {url}"))
}

/// It may be one of another command.
fn of_option(wrong: &str, root: &Command) -> Option<String> {
    let long = wrong.strip_prefix("--")?.split([' ', '=']).next()?;
    let has = |command: &Command| command.get_arguments().any(|arg| arg.get_long() == Some(long));
    let of: Vec<_> = root.get_subcommands().filter(|command| has(command)).map(Command::get_name).collect();
    match of[..] {
        [] => None,
        [first, second, third, _, ..] => {
            Some(format!("--{long} is an option of {first}, {second}, {third} and others"))
        }
        _ => Some(format!("--{long} is an option of {}", of.join(" and "))),
    }
}

fn of_command(wrong: &str, root: &Command) -> Option<String> {
    let command = root.find_subcommand(wrong)?;
    Some(format!("{wrong} is a command of its own: switchboard {}", command.get_name()))
}

/// Of a number, that it is one, and has no unit.
fn of_value(option: &str, value: &str) -> Option<String> {
    let unit = match option {
        _ if option.contains("<SECONDS>") => "a number of seconds",
        _ if option.contains("<N>") => "a number",
        _ => return None,
    };
    if value.parse::<f64>().is_ok() {
        return None;
    }
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let name = option.split(' ').next().unwrap_or_default();
    match value.strip_prefix(digits) {
        Some("s" | "sec" | "seconds") if digits.parse::<u64>().is_ok() => {
            Some(format!("it is {unit}, without a unit: {name} {digits}"))
        }
        Some("m" | "min") if option.contains("<SECONDS>") => {
            let seconds = digits.parse::<u64>().ok()?.checked_mul(60)?;
            Some(format!("it is {unit}, without a unit: {name} {seconds}"))
        }
        _ => Some(format!("it is {unit}, in digits alone")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::command::cli::Cli;

    fn told(args: &[&str]) -> String {
        let error = Cli::try_parse_from([&["switchboard"], args].concat()).unwrap_err();
        with_tip(error, &<Cli as CommandFactory>::command()).to_string()
    }

    #[test]
    fn no_password_is_shown() {
        for args in [
            &["redis://user:secret@box"][..],
            &["serve", "redis://:a/secret@b@box/1"],
            &["serve", "redis+unix:///run/redis.sock?pass=secret"],
            &["serve", "--max-connections", "redis://user:secret@box"],
            #[cfg(not(feature = "cluster"))]
            &["serve", "--cluster", "redis://user:secret@box"],
            #[cfg(not(feature = "cluster"))]
            &["check", "--cluster=unix:/run/redis.sock?db=1&pass=secret"],
            &["ws://user:secret@box/chat"],
        ] {
            let told = told(args);
            assert!(told.contains('…') && !told.contains("secret"), "{args:?}: {told}");
        }
    }

    #[test]
    fn what_may_have_been_meant_is_told() {
        for (args, tip) in [
            (&["ws://box/chat"][..], "switchboard connect ws://box/chat"),
            (&["wss://box"], "switchboard connect wss://box"),
            (&["unix:/run/box.sock"], "switchboard connect unix:/run/box.sock"),
            (&["https://box/"], "switchboard connect wss://box/"),
            (&["list", "--max-connections", "5"], "--max-connections is an option of serve and check"),
            (&["serve", "--expect", "x"], "--expect is an option of connect"),
            (&["serve", "--json"], "--json is an option of check, list, show and others"),
            (&["serve", "connect"], "connect is a command of its own: switchboard connect"),
            (&["--ping-interval", "10s"], "it is a number of seconds, without a unit: --ping-interval 10"),
            (&["--ping-interval", "2m"], "without a unit: --ping-interval 120"),
            (&["--max-connections", "many"], "it is a number, in digits alone"),
            (&["--max_connections", "5"], "'--max-connections'"),
            (&["srve"], "'serve'"),
        ] {
            let told = told(args);
            assert!(told.contains("tip: ") && told.contains(tip), "{args:?}: {told}");
        }
        for args in
            [&["--gibberish"][..], &["--max-connections", "0"], &["--compress", "gzip"], &["serve", "x"]]
        {
            assert!(!told(args).contains("tip: "), "{args:?}: {}", told(args));
        }
    }
}
