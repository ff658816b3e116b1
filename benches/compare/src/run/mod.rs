//! The comparison: every load on every peer in turn, A B C A B C, so that what else the machine does meets all alike.

mod child;
mod contestant;
mod loads;

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, builder::PossibleValuesParser};
use serde::Serialize;

use self::{child::Cores, contestant::Added};
pub(crate) use self::{
    contestant::Contestant,
    loads::{Load, Unit},
};
use crate::{
    load::{Measurement, positive, seconds},
    peers, plot, report, system,
};

#[derive(Args)]
pub(crate) struct Options {
    /// How often each load is put on each peer; the medians are reported
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    reps: usize,
    /// How long a load is measured
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    secs: f64,
    /// Of the built-in peers only these, separated by commas
    #[arg(long, value_name = "PEERS", value_delimiter = ',',
        value_parser = PossibleValuesParser::new(peers::BUILTIN.iter().map(|peer| peer.name)))]
    only: Vec<String>,
    /// Only these loads, separated by commas
    #[arg(long, value_name = "LOADS", value_delimiter = ',',
        value_parser = PossibleValuesParser::new(loads::LOADS.iter().map(|load| load.name)))]
    loads: Vec<String>,
    /// Add another server: NAME=[KIND:/PATH:]COMMAND (may be repeated)
    ///
    /// COMMAND is split at spaces, no shell looks at it, and `{port}` in it becomes the port to listen on, of 127.0.0.1.
    /// KIND says what is served at PATH: `ws` (the default, at /) echoes each message, `wss` does so over TLS, `fan` sends
    /// each message to all who are connected. A name with several kinds is given several times:
    ///
    /// --peer 'uws=node uws.js {port}' --peer 'uws=fan:/broadcast:node uws.js {port}'
    #[arg(long = "peer", value_name = "SERVER", value_parser = contestant::added)]
    added: Vec<Added>,
    /// Write all measurements to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a plot of the load `growth` to a file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The core of the server
    #[arg(long, value_name = "N", default_value_t = 0)]
    server_core: usize,
    /// The core of the load
    #[arg(long, value_name = "N", default_value_t = 1)]
    load_core: usize,
}

/// All that was measured, and what it depends on.
#[derive(Serialize)]
pub(crate) struct Comparison {
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) kernel: String,
    /// Before the first load.
    pub(crate) load_average: String,
    pub(crate) reps: usize,
    pub(crate) secs: f64,
    pub(crate) server_core: usize,
    pub(crate) load_core: usize,
    pub(crate) peers: Vec<Contestant>,
    #[serde(skip)]
    pub(crate) loads: Vec<&'static Load>,
    pub(crate) runs: Vec<Run>,
}

/// One load on one peer, once.
#[derive(Serialize)]
pub(crate) struct Run {
    pub(crate) load: &'static str,
    pub(crate) connections: usize,
    pub(crate) peer: String,
    pub(crate) rep: usize,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Measured(Measurement),
    Failed(String),
}

/// Runs the comparison, and prints it; tells whether all went well.
pub(crate) fn compare(options: &Options) -> Result<bool> {
    let loads: Vec<_> = loads::LOADS
        .iter()
        .filter(|load| options.loads.is_empty() || options.loads.iter().any(|name| name == load.name))
        .collect();
    let growth = loads.iter().any(|load| load.name == loads::GROWTH);
    ensure!(options.svg.is_none() || growth, "--svg needs the load {}", loads::GROWTH);
    let cores = Cores { server: options.server_core, load: options.load_core };
    cores.check()?;
    // Half an hour is too late to find that a file cannot be written.
    let json = options.json.as_ref().map(create).transpose()?;
    let svg = options.svg.as_ref().map(create).transpose()?;

    let mut comparison = Comparison {
        date: system::now(),
        cpu: system::cpu_model(),
        kernel: system::kernel(),
        load_average: system::load_average(),
        reps: options.reps,
        secs: options.secs,
        server_core: cores.server,
        load_core: cores.load,
        peers: contestant::all(&options.only, &options.added)?,
        loads,
        runs: Vec::new(),
    };
    comparison.run(&cores);
    print!("{}", report::markdown(&comparison));
    if let Some(mut file) = json {
        serde_json::to_writer_pretty(&mut file, &comparison).context("--json")?;
        file.flush().context("--json")?;
    }
    if let Some(mut file) = svg {
        file.write_all(plot::svg(&comparison).as_bytes()).and_then(|()| file.flush()).context("--svg")?;
    }
    Ok(comparison.runs.iter().all(|run| matches!(run.outcome, Outcome::Measured(_))))
}

fn create(path: &PathBuf) -> Result<BufWriter<File>> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(BufWriter::new(file))
}

impl Comparison {
    fn run(&mut self, cores: &Cores) {
        let points: Vec<_> =
            self.loads.iter().flat_map(|&load| load.connections.iter().map(move |&n| (load, n))).collect();
        let pairs: usize =
            points.iter().map(|(load, _)| self.peers.iter().filter(|peer| peer.serves(load)).count()).sum();
        let minutes = (pairs * self.reps) as f64 * (self.secs + 1.5) / 60.0;
        eprintln!("{} loads take about {minutes:.0} min; nothing else should run", pairs * self.reps);
        for rep in 1..=self.reps {
            for &(load, connections) in &points {
                for peer in 0..self.peers.len() {
                    self.run_one(rep, load, connections, peer, cores);
                }
            }
        }
    }

    fn run_one(&mut self, rep: usize, load: &'static Load, connections: usize, peer: usize, cores: &Cores) {
        let contestant = &self.peers[peer];
        let Some(service) = contestant.service(load) else { return };
        // What failed once is not waited for again.
        if self.outcomes(load, connections, contestant).any(|run| matches!(run, Outcome::Failed(_))) {
            return;
        }
        let measured = child::measure(service, load, connections, self.secs, cores);
        let outcome = measured.map_or_else(|e| Outcome::Failed(format!("{e:#}")), Outcome::Measured);
        let what = match &outcome {
            Outcome::Measured(measured) => {
                format!(
                    "{} {}",
                    load.unit.format(load.unit.of(measured).unwrap_or_default()),
                    load.unit.name()
                )
            }
            Outcome::Failed(why) => format!("failed: {why}"),
        };
        eprintln!("{rep}/{} {} ×{connections} {}: {what}", self.reps, load.name, contestant.name);
        let peer = contestant.name.clone();
        self.runs.push(Run { load: load.name, connections, peer, rep, outcome });
    }

    /// What came of a load on a peer, one for each time.
    pub(crate) fn outcomes(
        &self,
        load: &Load,
        connections: usize,
        peer: &Contestant,
    ) -> impl Iterator<Item = &Outcome> {
        self.runs
            .iter()
            .filter(move |run| {
                run.load == load.name && run.connections == connections && run.peer == peer.name
            })
            .map(|run| &run.outcome)
    }

    /// The median of one quantity; none if it was not measured, or if the peer failed.
    pub(crate) fn median(
        &self,
        load: &Load,
        connections: usize,
        peer: &Contestant,
        of: impl Fn(&Measurement) -> Option<f64>,
    ) -> Option<f64> {
        let value = |outcome: &Outcome| match outcome {
            Outcome::Measured(measured) => of(measured),
            Outcome::Failed(_) => None,
        };
        let values: Option<Vec<_>> = self.outcomes(load, connections, peer).map(value).collect();
        median(values?)
    }
}

#[cfg(test)]
impl Comparison {
    /// All built-in peers and loads, with numbers that nobody measured.
    pub(crate) fn for_tests() -> Self {
        let peers = contestant::all(&[], &[]).unwrap();
        let loads: Vec<_> = loads::LOADS.iter().collect();
        let mut runs = Vec::new();
        for (at, peer) in peers.iter().enumerate() {
            for load in loads.iter().filter(|load| peer.serves(load)) {
                for &connections in load.connections {
                    let growing = (connections as f64).powf(0.8);
                    let measured = Measurement {
                        connections,
                        per_second: Some(10_000.0 * (1.0 + at as f64) * (1.0 + growing / (10.0 + growing))),
                        p50_us: Some(50.0),
                        p99_us: Some(90.0),
                        cpu_us_each: Some(2.0),
                        resident_mib: Some(3.0 + growing * (1.0 + at as f64) / 10.0),
                        kib_each: Some(1.0),
                        threads: Some(0),
                        idle_cpu_percent: Some(0.0),
                    };
                    let (peer, outcome) = (peer.name.clone(), Outcome::Measured(measured));
                    runs.push(Run { load: load.name, connections, peer, rep: 1, outcome });
                }
            }
        }
        let [date, cpu, kernel, load_average] = [(); 4].map(|()| "?".to_owned());
        let (reps, secs, server_core, load_core) = (1, 2.0, 0, 1);
        Self { date, cpu, kernel, load_average, reps, secs, server_core, load_core, peers, loads, runs }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len().is_multiple_of(2) { (values[values.len() / 2 - 1] + upper) / 2.0 } else { upper })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
