//! The numbers of the whole server, beside those of its connections: if it tells them.

use std::time::Duration;

use serde::Deserialize;
use switchboard::{Client, ClientError};

use crate::command::remote::place::Place;

/// As often as it can be.
const INTERVALS: [f64; 2] = [0.5, 60.0];

pub(super) struct Stats<'a> {
    place: &'a Place,
    path: String,
    /// `None`: there is none now.
    line: Option<Client>,
    /// The server is an older one.
    is_unknown: bool,
    last: Option<Numbers>,
    facts: Option<Facts>,
}

/// What is shown of them.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) version: String,
    pub(super) uptime: Duration,
    /// Bytes.
    pub(super) memory: Option<u64>,
    /// A second.
    pub(super) pushes: Option<f64>,
    pub(super) node: u32,
    /// In its cluster, itself included.
    pub(super) nodes: usize,
    /// Redis is not reached.
    pub(super) is_cut_off: bool,
}

/// Of what is told, that of interest here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Numbers {
    version: String,
    uptime_seconds: f64,
    pushes: u64,
    resident_bytes: Option<u64>,
    /// An older server knows of no cluster.
    #[serde(default)]
    node: u32,
    #[serde(default)]
    nodes: usize,
    cluster: Option<String>,
}

impl<'a> Stats<'a> {
    pub(super) fn new(place: &'a Place, interval: Duration) -> Self {
        let [least, most] = INTERVALS;
        let path = format!("/@stats?interval={:.1}", interval.as_secs_f64().clamp(least, most));
        Self { place, path, line: None, is_unknown: false, last: None, facts: None }
    }

    /// What was told last.
    pub(super) fn look(&mut self) -> Option<Facts> {
        self.connect();
        while let Some(client) = &self.line {
            match client.try_read(usize::MAX) {
                Ok(Some(message)) => self.take(message.as_text().unwrap_or_default()),
                Ok(None) => break,
                Err(_) => {
                    self.line = None;
                    self.last = None;
                    self.facts = None;
                }
            }
        }
        self.facts.clone()
    }

    fn connect(&mut self) {
        if self.line.is_some() || self.is_unknown {
            return;
        }
        match self.place.client(&self.path).map(|builder| builder.connect()) {
            Ok(Ok(client)) => self.line = Some(client),
            Ok(Err(ClientError::Refused(response))) => self.is_unknown = response.status().as_u16() == 404,
            _ => {} // it is tried again
        }
    }

    fn take(&mut self, text: &str) {
        let Ok(numbers) = serde_json::from_str::<Numbers>(text) else { return };
        let pushes = self.last.as_ref().map(|last| {
            let time = (numbers.uptime_seconds - last.uptime_seconds).max(0.001);
            numbers.pushes.saturating_sub(last.pushes) as f64 / time
        });
        self.facts = Some(Facts {
            version: numbers.version.clone(),
            uptime: Duration::try_from_secs_f64(numbers.uptime_seconds).unwrap_or_default(),
            memory: numbers.resident_bytes,
            pushes,
            node: numbers.node,
            nodes: numbers.nodes,
            is_cut_off: numbers.cluster.as_deref().is_some_and(|state| state != "up"),
        });
        self.last = Some(numbers);
    }
}
