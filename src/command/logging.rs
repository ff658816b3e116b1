//! Where the log goes.

use std::{error::Error, fs::OpenOptions, io::IsTerminal, path::Path};

use log::LevelFilter;
use simplelog::{ColorChoice, Config, ConfigBuilder, TermLogger, TerminalMode, WriteLogger};

/// Logs to the file, or else to standard error.
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

/// With date and time, and only the lines of Switchboard itself, because tungstenite logs every frame.
fn config() -> Config {
    ConfigBuilder::new().set_time_format_rfc3339().add_filter_allow_str("switchboard").build()
}
