//! The command as a client of a server that runs: it looks at connections, pushes to them, reads from them and ends them, over the
//! server's management listener, and so by the same `Hub` as any program.

mod audience;
mod broadcast;
mod end;
mod events;
mod failure;
mod human;
mod input;
mod json;
mod list;
mod nodes;
mod output;
mod place;
mod push;
mod read;
mod show;
mod table;
mod top;
mod topics;

use std::process::ExitCode;

use clap::Subcommand;

use self::failure::Failure;
pub(super) use self::place::PLACE;
use super::{codes::DONE, say::say};

/// What can be done with a server that runs.
#[derive(Debug, Subcommand)]
pub(super) enum Remote {
    /// List connections: whose they are, and how much they send and get
    List(Box<list::List>),
    /// Show all that is known of a connection
    Show(Box<show::Show>),
    /// Send messages to a connection
    Push(Box<push::Push>),
    /// Read what a shared connection has received
    Read(Box<read::Read>),
    /// End a connection
    End(Box<end::End>),
    /// Send messages to many: all, or those of a path, route, topic or user
    Broadcast(Box<broadcast::Broadcast>),
    /// List topics, and how many are in them
    Topics(Box<topics::Topics>),
    /// Print what happens: connections come and go, topics get and lose members
    Events(Box<events::Events>),
    /// Watch the connections that are busiest
    Top(Box<top::Top>),
}

impl Remote {
    /// Does it, says what went wrong, and returns the exit code.
    pub(super) fn run(&self) -> ExitCode {
        match self.try_run() {
            Ok(()) => DONE.into(),
            Err(Failure { code, text }) => {
                if let Some(text) = text {
                    say(&text);
                }
                code.into()
            }
        }
    }

    fn try_run(&self) -> Result<(), Failure> {
        match self {
            Self::List(args) => args.run(),
            Self::Show(args) => args.run(),
            Self::Push(args) => args.run(),
            Self::Read(args) => args.run(),
            Self::End(args) => args.run(),
            Self::Broadcast(args) => args.run(),
            Self::Topics(args) => args.run(),
            Self::Events(args) => args.run(),
            Self::Top(args) => args.run(),
        }
    }
}

/// Below the help of each: what the exit codes say, and examples.
macro_rules! after_help {
    ($examples:literal) => {
        concat!(
            "Exit codes:\n",
            "  0    done\n",
            "  1    unreachable: no server, or no answer; or input or output failed\n",
            "  2    wrong usage\n",
            "  3    refused: a token that is missing, wrong or for reading only; a server\n",
            "       without management; a connection that is not shared; too much at once\n",
            "  4    gone: no connection has this ID (any more), or nobody was there\n",
            "  5    a time that was given has passed, or the client's queue is full\n",
            "  130  interrupted\n\n",
            "Examples, with SWITCHBOARD_MANAGE=unix:/run/box.sock in the environment:\n",
            $examples
        )
    };
}
use after_help;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in columns would be torn apart.
    #[test]
    fn codes_and_examples_fit_a_terminal() {
        for subcommand in Remote::augment_subcommands(clap::Command::new("x")).get_subcommands() {
            let help = subcommand.get_after_help().unwrap().to_string();
            for line in help.lines().filter(|line| line.starts_with(' ')) {
                assert!(line.chars().count() < 80, "{}: {line}", subcommand.get_name());
            }
        }
    }
}
