//! Processes that a benchmark consists of, and the figure that it tells.
#![allow(dead_code, unreachable_pub, reason = "each benchmark is a crate of its own and uses what it needs")]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A process that ends with this.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This program, asked by lines.
pub struct Process {
    _child: Running,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    pub fn start(args: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let mut child =
            command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
        let (stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Self { _child: Running(child), stdin, stdout: BufReader::new(stdout) }
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        assert!(!line.is_empty(), "a process has ended");
        line.trim().to_owned()
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("a process");
    }

    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.line()
    }
}
