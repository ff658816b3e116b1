//! Variables that look as if they were ours.

use std::env;

use clap::CommandFactory;

use super::finding::{Finding, Level};
use crate::command::{cli::Cli, settings};

/// Of the scripts that start the service.
const OTHERS: [&str; 2] = ["SWITCHBOARD_OPTIONS", "SWITCHBOARD_USER"];

pub(super) fn unknown() -> Vec<Finding> {
    let known = settings::variables(&<Cli as CommandFactory>::command());
    let set = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<_> = set
        .filter(|name| name.starts_with("SWITCHBOARD_") && !name.starts_with("SWITCHBOARD_TEST_"))
        .filter(|name| !OTHERS.contains(&name.as_str()) && !known.contains(name))
        .collect();
    unknown.sort();
    unknown
        .iter()
        .map(|name| {
            let meant = settings::alike(name, known.iter().map(String::as_str));
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            Finding::new(
                Level::Warning,
                "environment",
                &format!("{name} is the variable of no option{meant}"),
            )
        })
        .collect()
}
