//! The command at a terminal: what is typed there, and what it shows.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    process::{Child, Command},
    sync::mpsc,
    thread,
    time::Instant,
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use super::{PATIENCE, process::COMMAND};

/// The command at a terminal of its own. Dropping it kills it, and waits for its end.
pub struct Terminal {
    pub child: Child,
    master: File,
    shown: mpsc::Receiver<Vec<u8>>,
    /// What was not waited for yet.
    rest: Vec<u8>,
}

impl Terminal {
    pub fn start(args: &[&str]) -> Self {
        Self::start_as("xterm", args)
    }

    pub fn start_as(term: &str, args: &[&str]) -> Self {
        Self::spawn(Command::new(COMMAND).args(args).env("TERM", term), None)
    }

    /// With a terminal of so many columns and rows.
    pub fn spawn(command: &mut Command, size: Option<(u16, u16)>) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name).unwrap();
        if let Some(size) = size {
            resize(&slave, size);
        }
        let end = || slave.try_clone().unwrap();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let master = File::from(master);
        Self { child, shown: pieces(master.try_clone().unwrap()), master, rest: Vec::new() }
    }

    pub fn write(&mut self, typed: &str) {
        self.master.write_all(typed.as_bytes()).unwrap();
    }

    /// It has so many columns and rows now.
    pub fn resize(&self, size: (u16, u16)) {
        resize(&self.master, size);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.contains(") T ")
    }

    pub fn modes(&self) -> LocalModes {
        tcgetattr(&self.master).unwrap().local_modes
    }

    /// Whether this is shown, behind what was waited for before.
    pub fn has_shown(&mut self, text: &str) -> bool {
        self.rest.extend(self.shown.try_iter().flatten());
        let at = self.rest.windows(text.len()).position(|window| window == text.as_bytes());
        at.map(|at| self.rest.drain(..at + text.len())).is_some()
    }

    /// The rest of the line that is shown now.
    #[track_caller]
    pub fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.rest.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<_> = self.rest.drain(..end + 2).collect();
                return String::from_utf8(line).unwrap().trim_end().to_owned();
            }
            self.rest.extend(self.shown.recv_timeout(PATIENCE).expect("another line"));
        }
    }

    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let begun = Instant::now();
        while !self.has_shown(text) {
            match self.shown.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
                Ok(piece) => self.rest.extend(piece),
                Err(e) => panic!("{e}: no {text:?} in {:?}", String::from_utf8_lossy(&self.rest)),
            }
        }
    }
}

fn resize(terminal: &File, (columns, rows): (u16, u16)) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

/// What comes, as it comes.
fn pieces(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut piece)
            && tx.send(piece[..n].to_vec()).is_ok()
        {}
    });
    rx
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
