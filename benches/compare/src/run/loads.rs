//! The loads, and what is reported of each.

use super::contestant::Kind;
use crate::load::Measurement;

pub(crate) struct Load {
    pub(crate) name: &'static str,
    /// What it is, in a line.
    pub(crate) what: &'static str,
    pub(super) kind: Kind,
    /// `compare load COMMAND`
    pub(super) command: &'static str,
    /// One measurement for each of these.
    pub(crate) connections: &'static [usize],
    pub(super) inflight: usize,
    pub(super) size: usize,
    pub(crate) unit: Unit,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Unit {
    Messages,
    Handshakes,
    KibEach,
}

pub(crate) const GROWTH: &str = "growth";

const ECHO: Load = Load {
    name: "",
    what: "",
    kind: Kind::Ws,
    command: "echo",
    connections: &[64],
    inflight: 1,
    size: 64,
    unit: Unit::Messages,
};

pub(crate) const LOADS: &[Load] = &[
    Load { name: "echo1", what: "an echo of 64 bytes, 1 connection", connections: &[1], ..ECHO },
    Load { name: "echo64", what: "echoes of 64 bytes, 64 connections", ..ECHO },
    Load { name: "pipe", what: "the same, 16 messages of each on their way at once", inflight: 16, ..ECHO },
    Load {
        name: "big",
        what: "echoes of 16 KiB, 16 connections",
        connections: &[16],
        size: 16 << 10,
        ..ECHO
    },
    Load { name: "big1m", what: "echoes of 1 MiB, 4 connections", connections: &[4], size: 1 << 20, ..ECHO },
    Load {
        name: "connect",
        what: "opening handshakes, one after the other",
        command: "connect",
        connections: &[1],
        unit: Unit::Handshakes,
        ..ECHO
    },
    Load {
        name: "idle",
        what: "resident memory of 4,000 connections that wait, after one echo of each",
        command: "idle",
        connections: &[4000],
        unit: Unit::KibEach,
        ..ECHO
    },
    Load {
        name: "fan",
        what: "a message of 64 bytes to each of 1,000 connections, then the next; latency: until all have it",
        kind: Kind::Fan,
        command: "fan",
        connections: &[1000],
        ..ECHO
    },
    Load { name: "tls-echo64", what: "`echo64` over TLS", kind: Kind::Wss, ..ECHO },
    Load { name: "tls-pipe", what: "`pipe` over TLS", kind: Kind::Wss, inflight: 16, ..ECHO },
    Load {
        name: "tls-big",
        what: "`big` over TLS",
        kind: Kind::Wss,
        connections: &[16],
        size: 16 << 10,
        ..ECHO
    },
    Load {
        name: "tls-connect",
        what: "`connect` over TLS",
        kind: Kind::Wss,
        command: "connect",
        connections: &[1],
        unit: Unit::Handshakes,
        ..ECHO
    },
    Load {
        name: "tls-idle",
        what: "resident memory of 1,000 connections over TLS that wait, after one echo of each",
        kind: Kind::Wss,
        command: "idle",
        connections: &[1000],
        unit: Unit::KibEach,
        ..ECHO
    },
    Load {
        name: GROWTH,
        what: "echoes of 64 bytes, with more and more connections",
        connections: &[1, 10, 100, 1000, 4000],
        ..ECHO
    },
];

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages/s",
            Self::Handshakes => "handshakes/s",
            Self::KibEach => "KiB each",
        }
    }

    /// What one of them is called.
    pub(crate) fn one(self) -> &'static str {
        match self {
            Self::Messages => "message",
            Self::Handshakes => "handshake",
            Self::KibEach => "connection",
        }
    }

    pub(crate) fn of(self, measured: &Measurement) -> Option<f64> {
        match self {
            Self::Messages | Self::Handshakes => measured.per_second,
            Self::KibEach => measured.kib_each,
        }
    }

    pub(crate) fn format(self, value: f64) -> String {
        match self {
            Self::Messages | Self::Handshakes => thousands(value),
            Self::KibEach => format!("{value:.2}"),
        }
    }
}

/// A whole number with a comma between thousands.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(["0", "999", "1,000", "1,234,567"], [0.0, 999.4, 1000.0, 1_234_567.0].map(thousands)[..]);
    }
}
