//! What the command can be told to do.

use std::fmt::Write;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable};

#[cfg(feature = "completions")]
use super::completions::{Completions, Man};
use super::{
    args::Serve,
    check::{self, Check},
    connect::Connect,
    help::AFTER,
    remote::Remote,
    settings,
    systemd::Names,
    tips::with_tip,
};

/// WebSockets for threaded programs: a server to try them with, and a client.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, after_help = AFTER)]
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
    /// Tell what would go wrong with serve, without serving
    Check(Box<Check>),
    /// Connect to a WebSocket server: lines in, messages out
    Connect(Box<Connect>),
    #[command(flatten)]
    Remote(Remote),
    /// Print what completes options and commands in a shell
    #[cfg(feature = "completions")]
    Completions(Completions),
    /// Print the page of the manual, or write all of them into a folder
    #[cfg(feature = "completions")]
    Man(Man),
}

/// What the process is to do.
pub(super) struct Invocation {
    pub(super) command: Command,
    /// What there is to say of where options are from.
    pub(super) warnings: Vec<String>,
}

impl Cli {
    /// What the arguments, the environment and a file say. If they are wrong, or ask for help, the process ends.
    pub(super) fn read_or_exit() -> Invocation {
        let root = <Self as CommandFactory>::command();
        let described = settings::described(root.clone());
        let mut command = beside_passed(grouped(described), &Names::from_env());
        let read = settings::read(&mut command, std::env::args_os().collect());
        let parsed = read.and_then(|settings::Read { matches, warnings }| {
            let cli = Self::from_arg_matches(&matches).map_err(|e| e.format(&mut command))?;
            Ok((cli.command(), matches, warnings))
        });
        match parsed {
            Ok((Command::Check(check), matches, _)) if check.print_config => {
                let matches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
                std::process::exit(check::print_config(&root, matches))
            }
            Ok((command, _, warnings)) => Invocation { command, warnings },
            Err(e) => with_tip(e, &command).exit(),
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
    let command = command.mut_args(relax).mut_subcommand("serve", |serve| serve.mut_args(relax));
    command.mut_subcommand("check", |check| check.mut_args(relax))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Command, clap::Error> {
        Cli::try_parse_from([&["switchboard"], args].concat()).map(Cli::command)
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
    fn options_of_serve_do_not_go_with_another_command() {
        assert!(parse(&["--listen", "a:1", "connect", "ws://box"]).is_err());
    }
}
