//! What the command can be told to do.

use clap::{
    Parser, Subcommand,
    builder::StyledStr,
    error::{ContextKind, ContextValue},
};

use super::{
    args::{ROOMS, Serve},
    connect::Connect,
    remote::Remote,
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
        match Self::try_parse() {
            Ok(cli) => cli.command(),
            Err(e) => with_tip(e).exit(),
        }
    }

    fn command(self) -> Command {
        self.command.unwrap_or_else(|| Command::Serve(Box::new(self.serve)))
    }
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
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<Command, clap::Error> {
        Cli::try_parse_from([&["switchboard"], args].concat()).map(Cli::command).map_err(with_tip)
    }

    #[test]
    fn the_options_fit_together() {
        <Cli as CommandFactory>::command().debug_assert();
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
