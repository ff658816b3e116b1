//! What a server would log: its warnings are findings.

use std::sync::{Mutex, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};

use super::finding::{Finding, Level};

static HEARD: Heard = Heard(Mutex::new(Vec::new()));

struct Heard(Mutex<Vec<Finding>>);

/// From now on what is logged is kept.
pub(super) fn begin() {
    if log::set_logger(&HEARD).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

pub(super) fn all() -> Vec<Finding> {
    std::mem::take(&mut *HEARD.0.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Log for Heard {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().starts_with("switchboard")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = record.args().to_string();
            let about = if record.target().contains("::command") { "system" } else { "server" };
            let finding = Finding::new(level(record.level(), &text), about, &text);
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
        }
    }

    fn flush(&self) {}
}

/// A server starts with a certificate that clients refuse, since the clock may be set only later. Whoever looks wants to know it.
fn level(level: log::Level, text: &str) -> Level {
    let is_refused = text.contains(" has expired: ") || text.contains(" is not yet valid: ");
    if level == log::Level::Error || is_refused { Level::Error } else { Level::Warning }
}
