//! What a line of the log looks like, by where it goes: simplelog's, each on one line whatever is in it.

use std::{
    env,
    fs::File,
    io::{self, IsTerminal, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
    sync::{Arc, Mutex, PoisonError},
};

use log::{Level, LevelFilter, Log, Record};
use simplelog::{Config, ConfigBuilder, WriteLogger};

/// Longer lines are cut. So many bytes of a pipe are never mixed with what others write into it.
pub(super) const LONGEST: usize = 4096;

/// The same for syslog (RFC 3164, section 4.1).
const LONGEST_OF_SYSLOG: usize = 1024;

/// For programs that run in the background (RFC 3164, section 4.1.1).
const DAEMON: u8 = 3;

/// Who reads the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// People: with date and level.
    Dated { colors: bool },
    /// systemd's journal: it has the date, and takes the level from the beginning of the line (sd-daemon(3)).
    Journal,
    /// A syslog daemon, which dates what has no date, by a clock and in a time zone that it knows better.
    Syslog,
}

impl Style {
    /// That of standard error.
    pub(super) fn of_stderr() -> Self {
        if is_journal() { Self::Journal } else { Self::Dated { colors: is_color_terminal() } }
    }

    fn longest(self) -> usize {
        if self == Self::Syslog { LONGEST_OF_SYSLOG } else { LONGEST }
    }

    /// What stands before a line.
    pub(super) fn prefix(self, level: Level) -> String {
        match self {
            Self::Dated { .. } => String::new(),
            Self::Journal => format!("<{}>", severity(level)),
            Self::Syslog => {
                format!("<{}>switchboard[{}]: ", DAEMON * 8 + severity(level), std::process::id())
            }
        }
    }
}

/// Whether standard error leads to the journal: systemd says which file that is (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(told) = env::var("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
    stderr.is_ok_and(|file| told == format!("{}:{}", file.dev(), file.ino()))
}

fn is_color_terminal() -> bool {
    let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    let is_forbidden = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !is_dumb && !is_forbidden
}

/// Makes lines.
pub(super) struct Format {
    simple: Box<WriteLogger<Buffer>>,
    buffer: Buffer,
    /// Whoever has this has the buffer.
    turn: Mutex<()>,
    style: Style,
}

/// Where simplelog writes a line.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Format {
    pub(super) fn new(level: LevelFilter, style: Style) -> Self {
        let buffer = Buffer::default();
        let simple = WriteLogger::new(level, config(style), buffer.clone());
        Self { simple, buffer, turn: Mutex::default(), style }
    }

    pub(super) fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.simple.enabled(metadata)
    }

    /// Empty if lines of this target are not wanted. The text is complete: no code that is not ours runs in here.
    pub(super) fn line(&self, level: Level, target: &str, text: &str) -> Vec<u8> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let args = format_args!("{text}");
        self.simple.log(&Record::builder().level(level).target(target).args(args).build());
        let line = std::mem::take(&mut *self.buffer.0.lock().unwrap_or_else(PoisonError::into_inner));
        drop(turn);
        let line = String::from_utf8_lossy(&line);
        let Some(line) = line.strip_suffix('\n') else { return Vec::new() };
        let mut line = one_line(self.style.prefix(level), line, self.style.longest());
        if self.style == (Style::Dated { colors: true }) {
            let tag = format!("[{level}]");
            line = line.replacen(&tag, &format!("\x1b[{}m{tag}\x1b[0m", color(level)), 1);
        }
        line.push('\n');
        line.into_bytes()
    }
}

/// As syslog(3) numbers them.
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn color(level: Level) -> u8 {
    match level {
        Level::Error => 31,
        Level::Warn => 33,
        Level::Info => 34,
        Level::Debug => 36,
        Level::Trace => 37,
    }
}

/// Escapes control characters, and cuts what is too long.
fn one_line(prefix: String, text: &str, longest: usize) -> String {
    let mut line = prefix;
    for c in text.chars() {
        if line.len() > longest - 32 {
            line.push('…');
            break;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// With date and level, unless whoever reads it has both, and only the lines of Switchboard itself, because tungstenite logs every
/// frame.
fn config(style: Style) -> Config {
    let mut config = ConfigBuilder::new();
    config.set_time_format_rfc3339().add_filter_allow_str("switchboard");
    if matches!(style, Style::Journal | Style::Syslog) {
        config.set_time_level(LevelFilter::Off).set_max_level(LevelFilter::Off);
    }
    config.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(style: Style, level: Level, text: &str) -> String {
        String::from_utf8(Format::new(LevelFilter::Info, style).line(level, "switchboard", text)).unwrap()
    }

    #[test]
    fn levels_have_colors_on_a_terminal() {
        let line = line(Style::Dated { colors: true }, Level::Warn, "[WARN]");
        assert!(line.ends_with(" \x1b[33m[WARN]\x1b[0m [WARN]\n"), "{line:?}");
    }

    #[test]
    fn the_journal_and_syslog_have_dates_of_their_own() {
        for (level, severity) in [(Level::Error, 3), (Level::Warn, 4), (Level::Info, 6)] {
            assert_eq!(line(Style::Journal, level, "text"), format!("<{severity}>text\n"));
            let tag = format!("switchboard[{}]", std::process::id());
            assert_eq!(line(Style::Syslog, level, "a\nb"), format!("<{}>{tag}: a\\nb\n", 24 + severity));
        }
        let long = line(Style::Syslog, Level::Info, &"ä".repeat(2000));
        assert!((900..=LONGEST_OF_SYSLOG).contains(&long.len()) && long.ends_with("ä…\n"), "{}", long.len());
    }
}
