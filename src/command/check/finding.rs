//! What there is to tell.

use serde_json::json;

use crate::command::escaped::escaped;

/// The exit codes of monitoring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(in crate::command) enum Level {
    Ok = 0,
    Warning = 1,
    Error = 2,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

#[derive(Debug)]
pub(in crate::command) struct Finding {
    pub(in crate::command) level: Level,
    about: &'static str,
    text: String,
}

impl Finding {
    pub(in crate::command) fn new(level: Level, about: &'static str, text: &str) -> Self {
        Self { level, about, text: text.to_owned() }
    }

    /// One line, whatever is in it.
    pub(super) fn line(&self) -> String {
        format!("{:<7}  {}: {}", self.level.name(), self.about, escaped(&self.text))
    }

    pub(super) fn json(&self) -> String {
        json!({ "level": self.level.name(), "about": self.about, "text": self.text }).to_string()
    }
}
