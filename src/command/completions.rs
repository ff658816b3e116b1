//! What packages have beside the program: completions for shells, and pages of the manual.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{generate, shells};

use super::{
    cli::Cli,
    codes::{DONE, NO_CONNECTION},
    say::say,
    settings,
};

const NAME: &str = "switchboard";

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard completions bash > /usr/share/bash-completion/completions/switchboard
  switchboard completions zsh > /usr/share/zsh/vendor-completions/_switchboard
  switchboard completions fish > /usr/share/fish/vendor_completions.d/switchboard.fish")]
pub(super) struct Completions {
    /// For which shell
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  switchboard man | man -l -
  switchboard man /usr/share/man/man1")]
pub(super) struct Man {
    /// Write the pages into this folder: switchboard.1, and one for each command
    dir: Option<PathBuf>,
}

impl Completions {
    pub(super) fn run(&self) -> ExitCode {
        let (mut command, mut text) = (command(), Vec::new());
        match self.shell {
            Shell::Bash => generate(shells::Bash, &mut command, NAME, &mut text),
            Shell::Zsh => generate(shells::Zsh, &mut command, NAME, &mut text),
            Shell::Fish => generate(shells::Fish, &mut command, NAME, &mut text),
        }
        told(io::stdout().write_all(&text), "standard output")
    }
}

impl Man {
    pub(super) fn run(&self) -> ExitCode {
        match &self.dir {
            Some(dir) => told(write_pages(dir), &dir.display().to_string()),
            None => told(clap_mangen::Man::new(command()).render(&mut io::stdout()), "standard output"),
        }
    }
}

fn write_pages(dir: &Path) -> io::Result<()> {
    let mut command = command().disable_help_subcommand(true);
    command.build(); // each has the name of its page then
    write_page(&command, dir)
}

/// Its own, and those of its commands.
fn write_page(command: &clap::Command, dir: &Path) -> io::Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_page(command, dir)?;
    }
    let source = concat!("switchboard ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command.clone()).source(source).generate_to(dir).map(drop)
}

/// With all commands, also those that the help has elsewhere.
fn command() -> clap::Command {
    settings::described(<Cli as CommandFactory>::command())
}

fn told(result: io::Result<()>, place: &str) -> ExitCode {
    match result {
        Ok(()) => DONE.into(),
        Err(e) => {
            say(&format!("cannot write to {place}: {e}"));
            NO_CONNECTION.into()
        }
    }
}
