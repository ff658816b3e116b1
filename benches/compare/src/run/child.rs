//! The processes: a new server for each load, so that none finds what an earlier load left in memory.

use std::{
    env,
    io::Read,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::sched_getaffinity;

use super::{Load, contestant::Service};
use crate::load::Measurement;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(10);

/// For a server to end what it does at its start, the connection that found it listening included.
const SETTLE: Duration = Duration::from_millis(300);

/// What a load may take beyond its time of measuring: its connections have a minute to open.
const BEYOND: Duration = Duration::from_secs(80);

const POLL: Duration = Duration::from_millis(50);

pub(super) struct Cores {
    pub(super) server: usize,
    pub(super) load: usize,
}

impl Cores {
    pub(super) fn check(&self) -> Result<()> {
        let allowed = sched_getaffinity(None)?;
        for (core, option) in [(self.server, "--server-core"), (self.load, "--load-core")] {
            let there = core < rustix::thread::CpuSet::MAX_CPU && allowed.is_set(core);
            ensure!(there, "{option}: core {core} may not be used here");
        }
        Ok(())
    }
}

/// One load on one server, both started for it.
pub(super) fn measure(
    service: &Service,
    load: &Load,
    connections: usize,
    secs: f64,
    cores: &Cores,
) -> Result<Measurement> {
    let port = free_port()?;
    let mut server = start_server(service, port, cores.server)?;
    let program = env::current_exe()?.to_string_lossy().into_owned();
    let url = service.url(port);
    let values =
        [connections.to_string(), load.inflight.to_string(), load.size.to_string(), secs.to_string()];
    let [connections, inflight, size, seconds] = values.each_ref().map(String::as_str);
    let pid = server.0.id().to_string();
    let command =
        [program.as_str(), "load", load.command, &url, "--conns", connections, "--inflight", inflight];
    let options = ["--size", size, "--secs", seconds, "--pid", &pid];
    let command = command.into_iter().chain(options).map(String::from);
    let output = Stdio::piped;
    let mut process = pinned(cores.load, command)?.stdout(output()).stderr(output()).spawn().map(Process)?;
    let finished = process.wait(Duration::from_secs_f64(secs) + BEYOND);
    let ended = server.0.try_wait()?;
    let measured = finished.and_then(|()| process.measured());
    match ended {
        Some(status) if measured.is_err() => measured.with_context(|| format!("the server ended ({status})")),
        _ => measured,
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

fn start_server(service: &Service, port: u16, core: usize) -> Result<Process> {
    // What it complains about goes to standard error, as it comes.
    let mut server = pinned(core, service.command(port))?.stdout(Stdio::null()).spawn().map(Process)?;
    let begun = Instant::now();
    while let Err(e) = TcpStream::connect(("127.0.0.1", port)) {
        if let Some(status) = server.0.try_wait()? {
            bail!("the server did not start ({status})");
        }
        ensure!(begun.elapsed() < START, "the server does not listen after {START:?}: {e}");
        thread::sleep(POLL);
    }
    thread::sleep(SETTLE);
    Ok(server)
}

/// This program again, to become the command on that core.
fn pinned(core: usize, words: impl Iterator<Item = String>) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["pinned", "--core", &core.to_string(), "--"]).args(words).stdin(Stdio::null());
    Ok(command)
}

/// Dropping it ends it.
struct Process(Child);

impl Process {
    fn wait(&mut self, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        while self.0.try_wait()?.is_none() {
            ensure!(begun.elapsed() < patience, "the load did not end in {patience:?}");
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// What the load has said, which is less than a pipe holds.
    fn measured(&mut self) -> Result<Measurement> {
        let (mut out, mut complaint) = (String::new(), String::new());
        self.0.stdout.take().context("no output")?.read_to_string(&mut out)?;
        self.0.stderr.take().context("no output")?.read_to_string(&mut complaint)?;
        let status = self.0.wait()?;
        if status.success() {
            return serde_json::from_str(&out).context("the load's output");
        }
        let last = complaint.lines().last().unwrap_or_default();
        match last.strip_prefix("compare: ") {
            Some(why) => bail!("{why}"),
            None => bail!("the load failed ({status}) {last}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
