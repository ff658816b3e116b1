//! What the command can be told to do.

use std::fmt::Write;

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::{Resettable, StyledStr},
    error::{ContextKind, ContextValue},
};

use super::{
    args::{ROOMS, Serve},
    connect::Connect,
    remote::Remote,
    systemd::Names,
};

/// WebSockets for threaded programs: a server to try them with, and a client.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = ROOMS)]
pub(super) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve the demo page and its sockets (the same as no command at all)
    Serve(Box<Serve>),
    /// Connect to a WebSocket server: lines in, messages out
    Connect(Box<Connect>),
    #[command(flatten)]
    Remote(Remote),
}

impl Cli {
    /// What the arguments say. If they are wrong, or ask for help, the process ends.
    pub(super) fn command_or_exit() -> Command {
        let mut command = beside_passed(grouped(<Self as CommandFactory>::command()), &Names::from_env());
        let matches = command.try_get_matches_from_mut(std::env::args_os());
        match matches.and_then(|matches| Self::from_arg_matches(&matches).map_err(|e| e.format(&mut command)))
        {
            Ok(cli) => cli.command(),
            Err(e) => with_tip(e).exit(),
        }
    }

    fn command(self) -> Command {
        self.command.unwrap_or_else(|| Command::Serve(Box::new(self.serve)))
    }
}

/// Has the help tell what manages a server that runs from what is a server or a client.
fn grouped(mut command: clap::Command) -> clap::Command {
    let mut remote = String::new();
    for subcommand in Remote::augment_subcommands(clap::Command::new("remote")).get_subcommands() {
        let (name, about) = (subcommand.get_name(), subcommand.get_about().map(ToString::to_string));
        let _ = writeln!(remote, "  \x1b[1m{name:<9}\x1b[0m  {}", about.unwrap_or_default()); // a String takes all
        command = command.mut_subcommand(name, |subcommand| subcommand.hide(true));
    }
    let heading = |text: &str| format!("\x1b[1m\x1b[4m{text}\x1b[0m");
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}\n{{subcommands}}\n\n{}\n{remote}\n{}\n{{options}}{{after-help}}",
        heading("Commands:"),
        heading("Commands for a running server (where: --manage ADDR or SWITCHBOARD_MANAGE):"),
        heading("Options of serve:"),
    ))
}

/// An option that needs an address needs no other one beside a socket that the service manager has passed. What is wrong with those
/// is told when they are taken.
fn beside_passed(command: clap::Command, names: &Result<Names, String>) -> clap::Command {
    let mut ids = Vec::new();
    if names.as_ref().map_or(true, Names::has_tls) {
        ids.extend(["cert", "identity", "tls_backend", "tls_min_version", "client_ca"]);
    }
    if names.as_ref().map_or(true, Names::has_manage) {
        ids.extend(["manage_token_file", "manage_read_token_file"]);
    }
    let relax = |arg: clap::Arg| match ids.contains(&arg.get_id().as_str()) {
        true => arg.requires(Resettable::Reset),
        false => arg,
    };
    command.mut_args(relax).mut_subcommand("serve", |serve| serve.mut_args(relax))
}

/// Whoever gives a URL alone wants to connect to it.
fn with_tip(mut error: clap::Error) -> clap::Error {
    let given = [ContextKind::InvalidSubcommand, ContextKind::InvalidArg].map(|kind| error.get(kind));
    let url = given.into_iter().flatten().find_map(|value| match value {
        ContextValue::String(text) if is_url(text) => Some(text.clone()),
        _ => None,
    });
    if let Some(url) = url {
        let tip = StyledStr::from(format!("to connect to it: switchboard connect {url}"));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

fn is_url(text: &str) -> bool {
    ["ws://", "wss://", "unix:", "ws+unix:"].iter().any(|scheme| text.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Command, clap::Error> {
        Cli::try_parse_from([&["switchboard"], args].concat()).map(Cli::command).map_err(with_tip)
    }

    #[test]
    fn the_options_fit_together() {
        grouped(<Cli as CommandFactory>::command()).debug_assert();
    }

    #[test]
    fn each_subcommand_is_in_the_help() {
        let help = grouped(<Cli as CommandFactory>::command()).render_help().to_string();
        for subcommand in <Cli as CommandFactory>::command().get_subcommands() {
            let (name, about) = (subcommand.get_name(), subcommand.get_about().unwrap().to_string());
            let is_it = |line: &&str| line.split_whitespace().next() == Some(name) && line.ends_with(&about);
            assert_eq!(help.lines().filter(is_it).count(), 1, "{name} in {help}");
        }
        assert!(help.contains("Options of serve:\n") && help.contains("--max-connections"), "{help}");
    }

    #[test]
    fn serve_is_the_default() {
        for (args, expected) in [
            (&[][..], "127.0.0.1:8080"),
            (&["--listen", "a:1"], "a:1"),
            (&["serve"], "127.0.0.1:8080"),
            (&["serve", "--listen", "a:1"], "a:1"),
        ] {
            match parse(args) {
                Ok(Command::Serve(serve)) => assert_eq!(serve.listen(), [expected], "{args:?}"),
                other => panic!("{args:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_url_alone_is_answered_with_what_to_do() {
        for url in ["ws://box/chat", "wss://box", "unix:/run/box.sock"] {
            let told = parse(&[url]).unwrap_err().to_string();
            assert!(told.contains(&format!("switchboard connect {url}")), "{told}");
        }
        assert!(!parse(&["--nonsense"]).unwrap_err().to_string().contains("connect "));
        assert!(parse(&["--listen", "a:1", "connect", "ws://box"]).is_err());
    }
}
