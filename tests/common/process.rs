//! The command as a child process: its log, signals, and exit.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread::JoinHandle,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, eventually};

/// The path of the command that was built for these tests.
pub const COMMAND: &str = env!("CARGO_BIN_EXE_switchboard");

/// A running command. Dropping it kills it, and waits for its end.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    stdout: Option<JoinHandle<String>>,
    /// The lines of standard error that were read so far.
    pub stderr: Vec<String>,
}

/// A command that has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: Vec<String>,
}

impl Process {
    pub fn start(args: &[&str]) -> Self {
        Self::spawn(Command::new(COMMAND).args(args))
    }

    pub fn spawn(command: &mut Command) -> Self {
        let pipes = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        let (tx, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| tx.send(line)));
        let mut stdout = child.stdout.take().unwrap();
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        Self { child, lines, stdout: Some(stdout), stderr: Vec::new() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of the log that contains this text.
    pub fn line(&mut self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let line = self.next_line();
            if line.contains(text) {
                return line;
            }
            assert!(begun.elapsed() < PATIENCE, "no line with {text:?}: {:#?}", self.stderr);
        }
    }

    /// Waits for the next line of the log.
    pub fn next_line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.stderr.push(line.clone());
                line
            }
            Err(e) => panic!("no more lines: {e}: {:#?}", self.stderr),
        }
    }

    /// Waits for the log line with the next address of the page. `scheme` is `http` or `https`.
    pub fn address(&mut self, scheme: &str) -> SocketAddr {
        self.address_of("page", scheme)
    }

    /// The same of what is there.
    pub fn address_of(&mut self, what: &str, scheme: &str) -> SocketAddr {
        let end = format!("/ is the {what}");
        let line = self.line(&end);
        let (before, address) = line.trim_end_matches(end.as_str()).split_once("://").unwrap();
        assert_eq!(before.rsplit(' ').next(), Some(scheme), "{line}");
        address.parse().unwrap()
    }

    /// Processor time that it has used, in ticks of 10 ms.
    #[cfg(target_os = "linux")]
    pub fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// A value about its memory in KiB, by its name in proc(5), such as `VmHWM`, the peak of resident memory.
    #[cfg(target_os = "linux")]
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let of =
            |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.strip_suffix("kB")?.trim().parse().ok();
        status.lines().find_map(of).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it as an init system would.
    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        let ended = self.end();
        assert_eq!(ended.status.code(), Some(0), "{:#?}", ended.stderr);
        ended
    }

    /// Waits until it has ended by itself.
    pub fn end(mut self) -> Ended {
        let begun = Instant::now();
        loop {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
                Ok(line) => self.stderr.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {:#?}", self.stderr),
            }
        }
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let stdout = self.stdout.take().unwrap().join().unwrap();
        Ended { status: status.unwrap(), stdout, stderr: std::mem::take(&mut self.stderr) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // If it has ended already, both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
