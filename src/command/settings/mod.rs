//! Options from the environment and from a file. They are put on the command line before it is read: so what an option needs and what
//! it excludes is the same wherever it comes from, and is told in the same words. Of the command line, the environment, the file and
//! the default the first that has an option is heeded, and alone.

mod file;
mod items;
mod names;
mod origin;
mod print;

use std::{
    collections::BTreeSet,
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{
    Arg, ArgAction, ArgMatches, Command,
    builder::{PathBufValueParser, StyledStr},
    error::ErrorKind,
    parser::ValueSource,
};

pub(super) use self::print::printed;
use self::{
    file::File,
    names::{CONFIG, Kind, Name, commands, has_options},
    origin::Origin,
};

const CONFIG_VARIABLE: &str = "SWITCHBOARD_CONFIG";

/// What a server and its clients both have.
const SHARED: [&str; 2] = ["manage", "manage-token-file"];

/// How much a name has to be like a wrong one to be meant, from 0 to 1.
const ALIKE: f64 = 0.85;

/// The names of all variables.
pub(super) fn variables(root: &Command) -> BTreeSet<String> {
    let all = commands(root).flat_map(|(command, options)| {
        options.get_arguments().filter_map(move |arg| Name::of(root, command, arg))
    });
    all.map(|name| name.variable()).chain([CONFIG_VARIABLE.to_owned()]).collect()
}

/// The one that is meant by a name that is not among them, if one is like it.
pub(super) fn alike<'a>(wrong: &str, there: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let alike = there.map(|name| (strsim::jaro_winkler(wrong, name), name));
    let best = alike.filter(|(alike, _)| *alike > ALIKE).max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.map(|(_, name)| name)
}

/// What comes of it.
pub(super) struct Read {
    pub(super) matches: ArgMatches,
    /// What there is to say of the file.
    pub(super) warnings: Vec<String>,
}

/// An option that is not on the command line.
struct Found {
    id: String,
    args: Vec<OsString>,
    origin: Origin,
}

/// Adds what all commands have for this: `--config`, and to the help of each option the name of its variable.
pub(super) fn described(root: Command) -> Command {
    let original = root.clone();
    let named = |command: Option<&str>, options: Command| {
        let options = options.mut_args(|arg| {
            // Else a number below 0 would be taken for an option that there is not.
            let arg = if takes_number(&arg) { arg.allow_negative_numbers(true) } else { arg };
            match Name::of(&original, command, &arg) {
                Some(name) => with_variable(arg, &name.variable()),
                None => arg,
            }
        });
        options.arg(config())
    };
    let names: Vec<_> = original.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let root = named(None, root);
    names
        .iter()
        .filter(|name| has_options(Some(name)))
        .fold(root, |root, name| root.mut_subcommand(name, |options| named(Some(name), options)))
}

fn takes_number(arg: &Arg) -> bool {
    matches!(Kind::of(arg), Kind::One { is_number: true } | Kind::Many { is_number: true, .. })
}

fn config() -> Arg {
    let arg = Arg::new(CONFIG).long(CONFIG).value_name("FILE").value_parser(PathBufValueParser::new());
    let help = "Read options from this file, in TOML: names as here, such as max-connections = 100; switchboard check --print-config \
                prints one";
    with_variable(arg.help(help).action(ArgAction::Set), CONFIG_VARIABLE)
}

fn with_variable(arg: Arg, variable: &str) -> Arg {
    let with = |help: &StyledStr| format!("{} [env: {variable}]", help.ansi());
    match (arg.get_help().map(with), arg.get_long_help().map(with)) {
        (Some(help), Some(long)) => arg.help(help).long_help(long),
        (Some(help), None) => arg.help(help),
        _ => arg,
    }
}

/// What the command line, the environment and the file say together.
///
/// # Errors
/// As clap has them: what is wrong, and where that is from; or the help that was asked for.
pub(super) fn read(root: &mut Command, args: Vec<OsString>) -> Result<Read, clap::Error> {
    // What is wrong on the command line is told at the end, where it is met again.
    let typed = root.clone().ignore_errors(true).try_get_matches_from(&args)?;
    let (command, at, typed) = match typed.subcommand() {
        None => (None, 1, &typed),
        Some((name, typed)) => (Some(name), 2, typed),
    };
    let is_first = command.is_none_or(|name| args.get(1).is_some_and(|arg| arg == name));
    if !is_first || !has_options(command) {
        let matches = root.try_get_matches_from_mut(args)?;
        return Ok(Read { matches, warnings: Vec::new() });
    }
    let file = config_file(typed).map(|path| File::read(&path, root)).transpose().map_err(wrong)?;
    let found = found(root, command, typed, file.as_ref()).map_err(wrong)?;
    let mut all = args;
    let at = at.min(all.len());
    all.splice(at..at, found.iter().flat_map(|found| found.args.iter().cloned()));
    let matches = root.try_get_matches_from_mut(all);
    let origins: Vec<_> = found.iter().map(|found| &found.origin).collect();
    let matches = matches.map_err(|e| origin::told(e, &origins))?;
    Ok(Read { matches, warnings: file.map_or_else(Vec::new, |file| file.warnings) })
}

fn wrong(text: String) -> clap::Error {
    clap::Error::raw(ErrorKind::InvalidValue, format!("{text}\n"))
}

/// The file that is to be read.
fn config_file(typed: &ArgMatches) -> Option<PathBuf> {
    let given = typed.get_one::<PathBuf>(CONFIG).cloned();
    given.or_else(|| variable(CONFIG_VARIABLE).map(PathBuf::from))
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The options of a command that are in the environment or in the file, without those that do not go together with one that is heeded
/// before them.
fn found(
    root: &Command,
    command: Option<&str>,
    typed: &ArgMatches,
    file: Option<&File>,
) -> Result<Vec<Found>, String> {
    let Some((_, options)) = commands(root).find(|(name, _)| *name == command) else { return Ok(Vec::new()) };
    let is_typed = |arg: &Arg| typed.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let mut heeded: Vec<&Arg> = options.get_arguments().filter(|arg| is_typed(arg)).collect();
    let is_server = command.is_none_or(|name| name == "serve" || name == "check");
    let is_for_clients = is_server && manage_is_for_clients(typed, file);
    let from_environment =
        |name: &Name, arg: &Arg| match is_for_clients && SHARED.contains(&name.key.as_str()) {
            true => Ok(None),
            false => from_environment(name, arg),
        };
    let mut all = Vec::new();
    for layer in [&from_environment as Layer<'_>, &|name, arg| from_file(file, name, arg)] {
        let mut new = Vec::new();
        for arg in options.get_arguments() {
            let Some(name) = Name::of(root, command, arg) else { continue };
            let is_free = |other: &&Arg| other.get_id() != arg.get_id() && !conflict(options, arg, other);
            if heeded.iter().all(is_free)
                && let Some((args, origin)) = layer(&name, arg)?
            {
                all.push(Found { id: arg.get_id().to_string(), args, origin });
                new.push(arg);
            }
        }
        heeded.extend(new);
    }
    // In the order of the help, wherever they are from.
    let place = |found: &Found| options.get_arguments().position(|arg| arg.get_id().as_str() == found.id);
    all.sort_by_key(place);
    Ok(all)
}

/// Whether the variables that a server and its clients share are meant for clients: they say where a server is with a URL, or with what
/// token, and nothing says where this one would be managed.
fn manage_is_for_clients(typed: &ArgMatches, file: Option<&File>) -> bool {
    match variable("SWITCHBOARD_MANAGE") {
        Some(place) => place.to_string_lossy().contains("://"),
        None => {
            let is_typed = |id| typed.try_contains_id(id).is_ok_and(|is_there| is_there);
            let key = |key: &str| Name { table: None, key: key.to_owned() };
            let is_in_file = |key: Name| file.is_some_and(|file| file.entry(&key).is_some());
            let is_managed = ["manage", "manage_read_only", "manage_tls"].into_iter().any(is_typed)
                || ["manage", "manage-read-only", "manage-tls"].map(key).into_iter().any(is_in_file);
            let others = ["SWITCHBOARD_MANAGE_READ_ONLY", "SWITCHBOARD_MANAGE_TLS"];
            !is_managed && others.into_iter().all(|name| variable(name).is_none())
        }
    }
}

/// Where options may be found.
type Layer<'a> = &'a dyn Fn(&Name, &Arg) -> Result<Option<(Vec<OsString>, Origin)>, String>;

fn conflict(options: &Command, one: &Arg, other: &Arg) -> bool {
    let excludes = |one, other: &Arg| {
        options.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
    };
    excludes(one, other) || excludes(other, one)
}

fn from_environment(name: &Name, arg: &Arg) -> Result<Option<(Vec<OsString>, Origin)>, String> {
    let variable_name = name.variable();
    let Some(value) = variable(&variable_name) else { return Ok(None) };
    let long = arg.get_long().unwrap_or_default();
    let args = match Kind::of(arg) {
        Kind::One { .. } => vec![option(long, &value)],
        kind => {
            let text =
                value.to_str().ok_or_else(|| format!("{variable_name} is no UTF-8: {}", value.display()))?;
            match kind {
                Kind::Flag => flag(long, text).ok_or_else(|| {
                    format!("{variable_name} is {text:?}: it must be true or false (or 1 or 0, yes or no, on or off)")
                })?,
                Kind::Many { has_spaces: true, .. } => options_of(long, text.lines()),
                _ => options_of(long, text.split_ascii_whitespace()),
            }
        }
    };
    let origin = Origin::new(long, format!("{variable_name} of the environment"));
    Ok(Some((args, origin)))
}

fn from_file(file: Option<&File>, name: &Name, arg: &Arg) -> Result<Option<(Vec<OsString>, Origin)>, String> {
    let Some((file, entry)) = file.and_then(|file| Some((file, file.entry(name)?))) else { return Ok(None) };
    let long = arg.get_long().unwrap_or_default();
    let args = match Kind::of(arg) {
        Kind::Flag => flag(long, &entry.values.concat()).unwrap_or_default(),
        _ => options_of(long, entry.values.iter().map(String::as_str)),
    };
    Ok(Some((args, Origin::new(long, format!("line {} of {}", entry.line, file.path.display())))))
}

fn options_of<'a>(long: &str, values: impl Iterator<Item = &'a str>) -> Vec<OsString> {
    let values = values.map(str::trim).filter(|value| !value.is_empty());
    values.map(|value| option(long, OsStr::new(value))).collect()
}

fn option(long: &str, value: &OsStr) -> OsString {
    let mut option = OsString::from(format!("--{long}="));
    option.push(value);
    option
}

/// `None`: it is neither true nor false.
fn flag(long: &str, text: &str) -> Option<Vec<OsString>> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(vec![format!("--{long}").into()]),
        "false" | "0" | "no" | "off" => Some(Vec::new()),
        _ => None,
    }
}
