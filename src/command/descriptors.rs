//! The limit on open files, which is often only 1,024 by default: it is raised to what can be needed.

use log::warn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For each listener: itself, a pipe that wakes its thread, a spare one, one that is being accepted, and the clients that are being
/// turned away.
const LISTENER: u64 = 37;

/// For each gateway: epoll, and what wakes it.
const GATEWAY: u64 = 2;

/// Standard input, output and error; the log; two pipes that wake threads; the socket of the service manager.
const PROCESS: u64 = 9;

/// For what is open for a moment: looking up names, reading the system's limits, folders.
const SPARE: u64 = 16;

/// What the descriptors are needed for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needed {
    pub(super) connections: u64,
    /// Else the server has as many as there are descriptors for.
    pub(super) are_chosen: bool,
    /// Those of whoever manages the server.
    pub(super) managing: u64,
    /// A connection may be sent a file.
    pub(super) files: bool,
    pub(super) listeners: u64,
    pub(super) gateways: u64,
}

impl Needed {
    fn sum(self) -> u64 {
        let each = if self.files { 2 } else { 1 };
        self.connections * each
            + self.managing
            + self.listeners * LISTENER
            + self.gateways * GATEWAY
            + PROCESS
            + SPARE
    }
}

/// Raises the limit as far as it has to be and may be; says so if that is not enough.
pub(super) fn raise_limit(needed: Needed) {
    let limit = getrlimit(Resource::Nofile);
    let sum = needed.sum();
    let Some(wanted) = raised(limit, sum) else { return };
    let _ = setrlimit(Resource::Nofile, wanted); // what came of it is seen below
    if let Some(limit) = getrlimit(Resource::Nofile).current
        && limit < sum
        && needed.are_chosen
    {
        warn!("{}", missing(limit, needed));
    }
}

/// The new limit. `None`: the old one is enough.
fn raised(limit: Rlimit, sum: u64) -> Option<Rlimit> {
    let is_low = limit.current.is_some_and(|current| current < sum);
    let wanted = limit.maximum.map_or(sum, |maximum| maximum.min(sum));
    is_low.then_some(Rlimit { current: Some(wanted), maximum: limit.maximum })
}

fn missing(limit: u64, needed: Needed) -> String {
    let (sum, connections) = (needed.sum(), needed.connections);
    let files = if needed.files { ", with a file sent to each" } else { "" };
    format!(
        "the limit on open files is {limit}, and {connections} connections{files} can need {sum}: lower \
         --max-connections, or raise the limit (ulimit -n, or LimitNOFILE= of systemd)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: Needed =
        Needed { connections: 4096, are_chosen: true, managing: 0, files: false, listeners: 1, gateways: 1 };

    #[test]
    fn everything_is_counted() {
        assert_eq!(NEEDED.sum(), 4096 + 37 + 2 + 25);
        let with =
            |files, listeners, gateways| Needed { files, listeners, gateways, ..NEEDED }.sum() - NEEDED.sum();
        assert_eq!(Needed { managing: 128, ..NEEDED }.sum(), NEEDED.sum() + 128);
        assert_eq!((with(true, 1, 1), with(false, 3, 1), with(false, 1, 4)), (4096, 74, 6));
    }

    #[test]
    fn it_is_raised_as_far_as_possible_and_what_is_missing_is_told() {
        let limit = |current, maximum| Rlimit { current, maximum };
        let current = |of, sum| raised(of, sum).map(|limit| limit.current);
        assert_eq!(current(limit(None, None), 5000), None);
        assert_eq!(current(limit(Some(5000), Some(9000)), 5000), None);
        assert_eq!(current(limit(Some(1024), None), 5000), Some(Some(5000)));
        assert_eq!(current(limit(Some(1024), Some(9000)), 5000), Some(Some(5000)));
        assert_eq!(current(limit(Some(1024), Some(4999)), 5000), Some(Some(4999)));
        let text = missing(4096, Needed { files: true, ..NEEDED });
        assert!(text.contains("is 4096") && text.contains("a file sent to each can need 8256"), "{text}");
    }
}
