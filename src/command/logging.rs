//! Where the log goes.

use std::{error::Error, fs::OpenOptions, io::IsTerminal, path::Path};

use log::LevelFilter;
use simplelog::{ColorChoice, Config, ConfigBuilder, TermLogger, TerminalMode, WriteLogger};

/// To the file, or to standard error, so that standard output stays free.
pub(super) fn init(level: LevelFilter, file: Option<&Path>) -> Result<(), Box<dyn Error>> {
    match file {
        None => {
            let color = if std::io::stderr().is_terminal() { ColorChoice::Auto } else { ColorChoice::Never };
            TermLogger::init(level, config(), TerminalMode::Stderr, color)?;
        }
        Some(path) => {
            let open = OpenOptions::new().create(true).append(true).open(path);
            let file = open.map_err(|e| format!("cannot write the log to {}: {e}", path.display()))?;
            WriteLogger::init(level, config(), file)?;
        }
    }
    Ok(())
}

/// The day and the time, and only what Switchboard itself says: tungstenite logs every frame.
fn config() -> Config {
    ConfigBuilder::new().set_time_format_rfc3339().add_filter_allow_str("switchboard").build()
}
