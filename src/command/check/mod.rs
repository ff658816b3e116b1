//! `switchboard check`: what would go wrong with a server that has these options, at its start or soon after. It goes the same way as
//! `serve`, but for the last step: so what that would refuse, or warn of, is told here in the same words.

#[cfg(feature = "__tls")]
mod certificates;
#[cfg(feature = "cluster")]
mod cluster;
mod environment;
mod files;
mod finding;
mod heard;
mod places;
mod system;

use std::{io::Write, process::ExitCode};

use clap::Args;

pub(super) use self::finding::{Finding, Level};
use super::{
    Prepared, Purpose, apps, args::Serve, clock::Clock, descriptors, needed, prepare, settings,
    systemd::Sockets,
};

const CODES: &str = "\
Exit codes, as monitoring wants them (Nagios, Icinga, Zabbix):
  0    all is well
  1    there are warnings: it would serve, but not as one may think
  2    there are errors: serve would end with the first one, or clients could not
       connect; or wrong usage

Each line begins with ok, warning or error, and says what to do. The worst comes first.

Nobody is served, and nothing is changed. Ports are bound for a moment, without listening there: clients are neither taken from a server \
that runs nor accepted. The Redis of a --cluster is asked for the nodes that there are. Whether a folder can be written to is asked of the system. Run it as the user that serves.

Examples:
  switchboard check --config box.toml                   before the start of a server
  switchboard check --running --config box.toml         by monitoring
  switchboard check --print-config --listen 0.0.0.0:80  a file, with all options";

#[derive(Debug, Args)]
#[command(after_help = CODES)]
pub(super) struct Check {
    /// The server runs: ports are to be in use
    #[arg(long)]
    running: bool,
    /// Print a JSON object for each line: level (ok, warning or error), about, text
    #[arg(long)]
    json: bool,
    /// Print a file for --config, with all options as they are set, and check nothing
    #[arg(long)]
    pub(super) print_config: bool,
    #[command(flatten)]
    pub(super) serve: Serve,
}

/// Tells what there is to tell of these options, after `warnings`.
pub(super) fn run(args: &Check, warnings: &[String]) -> ExitCode {
    let mut findings: Vec<_> =
        warnings.iter().map(|text| Finding::new(Level::Warning, "config", text)).collect();
    findings.extend(environment::unknown());
    heard::begin();
    findings.extend(look(args));
    findings.extend(heard::all());
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level)); // stable: the rest is in the order of what happens
    let worst = findings.first().map_or(Level::Ok, |finding| finding.level);
    print(&findings, args.json);
    ExitCode::from(worst as u8)
}

fn look(args: &Check) -> Vec<Finding> {
    let serve = &args.serve;
    let (clock, chatters) = (Clock::new(), std::sync::Arc::<apps::Chatters>::default());
    let mut findings = Vec::new();
    let sockets = Sockets::take().unwrap_or_else(|e| {
        findings.push(Finding::new(Level::Error, "unit", &e));
        Sockets::default()
    });
    let places = places::of(serve, sockets.have_clients());
    let purpose = Purpose::Check { is_running: args.running };
    let prepared = prepare(serve, &clock, &chatters, sockets, purpose);
    let Prepared { builder, wrong, .. } = prepared;
    findings.extend(wrong.iter().map(|e| Finding::new(Level::Error, "options", &e.to_string())));
    #[cfg(feature = "__tls")]
    findings.extend(prepared.identity.iter().flat_map(|identity| certificates::look(identity, serve)));
    findings.extend(places::look(&places, &builder.rehearse(), args.running));
    #[cfg(feature = "cluster")]
    findings.extend(prepared.redis.iter().flat_map(|redis| cluster::look(redis, serve, args.running)));
    findings.extend(files::log(serve));
    findings.extend(system::look());
    let managing = places.iter().filter(|place| place.is_managing).count();
    descriptors::raise_limit(needed(serve, places.len() - managing, managing));
    findings
}

fn print(findings: &[Finding], as_json: bool) {
    let mut text = String::new();
    for finding in findings {
        text += &if as_json { finding.json() } else { finding.line() };
        text.push('\n');
    }
    let _ = std::io::stdout().write_all(text.as_bytes()); // there is the exit code
}

/// Prints a file with all options.
pub(super) fn print_config(root: &clap::Command, matches: &clap::ArgMatches) -> i32 {
    let printed = std::io::stdout().write_all(settings::printed(root, matches).as_bytes());
    printed.is_err().into()
}
