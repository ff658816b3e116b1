//! Compares switchboard with other WebSocket servers: see README.md.
//!
//! One program for everything, which starts itself: the comparison (`run`) starts each peer's server (`peers`) on one
//! core and the load (`load`) on another, and makes tables (`report`) and a plot (`plot`) of what the load measured.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[cfg(not(target_os = "linux"))]
compile_error!("the comparison needs Linux: it pins processes to cores, and reads /proc");

mod load;
mod peers;
mod plot;
mod report;
mod run;
mod system;

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, Parser, Subcommand, error::ErrorKind};

/// Compares switchboard with other WebSocket servers, all on this machine and in turn.
///
/// Without a command it runs the comparison, and prints a table for each load. Exit code 1: something failed.
#[derive(Parser)]
#[command(name = "compare", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Options,
}

#[derive(Subcommand)]
enum Command {
    /// Serve as one of the peers, on 127.0.0.1 until killed
    Serve(peers::Options),
    /// Put one load on one server, and print what was measured as JSON
    Load(load::Options),
    /// Run a command on one core (what the comparison starts servers and loads with)
    #[command(hide = true)]
    Pinned(Pinned),
}

#[derive(Args)]
struct Pinned {
    #[arg(long, value_name = "N")]
    core: usize,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    let result = match cli.command {
        None => run::compare(&cli.run),
        Some(Command::Serve(options)) => peers::serve(&options).map(|()| true),
        Some(Command::Load(options)) => load::run(&options).map(|()| true),
        Some(Command::Pinned(pinned)) => Err(system::exec_pinned(pinned.core, &pinned.command)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("compare: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Help as clap prints it, and of an error only the line that says what is wrong.
fn usage(e: &clap::Error) -> ExitCode {
    if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        print!("{e}");
        return ExitCode::SUCCESS;
    }
    // What is required and missing stands in lines of its own, before the first empty one.
    let text = e.to_string();
    let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    eprintln!("compare: {} (see --help)", lines.join(" ").trim_start_matches("error: "));
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        for good in [
            "compare",
            "compare --reps 1 --secs 0.5 --only limit,switchboard --loads pipe,growth --svg a.svg",
            "compare serve limit 9000",
            "compare serve tokio-tungstenite 9000 --tls",
            "compare load echo wss://127.0.0.1:9000/echo --conns 8 --pid 1",
            "compare pinned --core 1 node server.js --port 9000",
        ] {
            assert!(Cli::try_parse_from(good.split(' ')).is_ok(), "{good}");
        }
        for bad in [
            "compare --reps 0",
            "compare --secs 0",
            "compare --loads nonsense",
            "compare --only nonsense --peer",
            "compare --peer a=server",
            "compare serve nonsense 9000",
            "compare serve limit",
            "compare load echo http://127.0.0.1:9000/",
            "compare load echo ws://192.0.2.1:9000/",
            "compare load nonsense ws://127.0.0.1:9000/",
            "compare load echo ws://127.0.0.1:9000/ --conns 0",
        ] {
            assert!(Cli::try_parse_from(bad.split(' ')).is_err(), "{bad}");
        }
    }
}
