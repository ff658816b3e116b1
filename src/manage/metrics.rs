//! What Prometheus is told. Labels are the program's or ours: what clients invent, such as IDs, paths and codes, is none.

use super::{
    exposition::{CONTENT_TYPE, Exposition},
    process,
    query::Query,
    stats::{Numbers, Stats},
};
use crate::{
    http::{Refusal, Request, Response},
    hub::Hub,
    incidents::Incident,
    metrics::{MEASURED, Metrics},
    server::MainServer,
};

const KINDS: [&str; 2] = ["synchronous", "shared"];

pub(super) fn answer(main: &MainServer, stats: &Stats, request: &Request) -> Result<Response, Refusal> {
    Query::of(request, &[])?;
    let mut out = Exposition::default();
    let numbers = stats.numbers();
    about(&mut out, main);
    connections(&mut out, main, &numbers);
    if let Some(metrics) = main.metrics() {
        counted(&mut out, metrics, &numbers);
    }
    incidents(&mut out, main);
    #[cfg(feature = "cluster")]
    cluster(&mut out, main);
    traffic(&mut out, &numbers);
    certificates(&mut out, &main.hub());
    process(&mut out, &numbers);
    Ok(Response::new(CONTENT_TYPE, out.into_text()))
}

fn about(out: &mut Exposition, main: &MainServer) {
    let tls = match (cfg!(feature = "tls"), cfg!(feature = "rustls")) {
        (true, true) => "native-tls,rustls",
        (true, false) => "native-tls",
        (false, true) => "rustls",
        (false, false) => "",
    };
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("tls", tls)];
    out.gauge("switchboard_build_info", "The version that runs, and what it was built with.")
        .with(&labels, 1);
    let name = "switchboard_uptime_seconds";
    out.gauge(name, "How long ago the server was made.").value(main.uptime().as_secs_f64());
    let name = "switchboard_max_connections";
    out.gauge(name, "How many connections there may be.").value(main.limits().max_connections);
}

fn connections(out: &mut Exposition, main: &MainServer, numbers: &Numbers) {
    let opened = main.metrics().map(Metrics::opened_by_route).unwrap_or_default();
    let mut open = out.gauge("switchboard_connections", "Open connections, by route and kind.");
    for route in opened.keys() {
        let counts = numbers.census.by_route.get(route).copied().unwrap_or_default();
        for (kind, count) in KINDS.into_iter().zip(counts) {
            open.with(&[("route", route), ("kind", kind)], count);
        }
    }
    let name = "switchboard_connections_opened_total";
    let mut all = out.counter(name, "Connections that were opened, by route and kind.");
    for (route, counts) in &opened {
        for (kind, count) in KINDS.into_iter().zip(counts) {
            all.with(&[("route", route), ("kind", kind)], count);
        }
    }
    let name = "switchboard_blocked_connections";
    let help = "Open connections whose clients do not take more at the moment.";
    out.gauge(name, help).value(numbers.census.blocked);
    let name = "switchboard_topics";
    out.gauge(name, "Topics that have members.").value(numbers.census.topics);
    let name = "switchboard_users";
    out.gauge(name, "Users who have connections.").value(numbers.census.users);
}

/// What is counted as it happens.
fn counted(out: &mut Exposition, metrics: &Metrics, numbers: &Numbers) {
    let name = "switchboard_connections_closed_total";
    let mut closed =
        out.counter(name, "Connections that have ended, by close code, and the side that began.");
    for (code, side, count) in metrics.closed_by_code() {
        closed.with(&[("code", code), ("side", side)], count);
    }
    let name = "switchboard_slow_clients_closed_total";
    let help = "Connections that were ended because their clients did not take what was sent.";
    out.counter(name, help).value(metrics.slow());
    let name = "switchboard_pushes_total";
    let mut pushes = out.counter(name, "Messages pushed, by result; of a broadcast each recipient counts.");
    for (result, count) in metrics.pushes() {
        pushes.with(&[("result", result)], count);
    }
    let name = "switchboard_handshake_duration_seconds";
    let help = "From the begin of a connection, or of a later request on it, to its 101.";
    out.histogram(name, help, &metrics.handshakes);
    let name = "switchboard_push_duration_seconds";
    let help = format!("How long pushes to single connections took; one in {MEASURED} is measured.");
    out.histogram(name, &help, &metrics.push_times);
    let name = "switchboard_ping_duration_seconds";
    out.histogram(name, "From a ping to its pong.", &metrics.round_trips);
    let name = "switchboard_queued_bytes";
    out.gauge(name, "What waits to be sent, in all connections.").value(numbers.census.queued);
}

fn incidents(out: &mut Exposition, main: &MainServer) {
    let all = main.incidents();
    let name = "switchboard_handshakes_refused_total";
    let help = "Clients that were turned away: by HTTP status, or the limit that left no place for them.";
    let mut refused = out.counter(name, help);
    for (incident, count) in &all {
        match incident {
            Incident::Refused(status) => refused.with(&[("reason", status.as_str())], count),
            Incident::NoPlace => refused.with(&[("reason", "max_connections")], count),
            Incident::NoPlaceForAddress => {
                refused.with(&[("reason", "max_connections_per_address")], count);
            }
            Incident::NoRoom => refused.with(&[("reason", "no_room")], count),
            _ => {}
        }
    }
    let total = |wanted| all.iter().find(|(incident, _)| *incident == wanted).map_or(0, |(_, count)| *count);
    for (name, help, incident) in [
        (
            "switchboard_connections_without_request_total",
            "Clients that came to no request: they left, were too slow, or broke TLS.",
            Incident::NoRequest,
        ),
        (
            "switchboard_connections_ended_for_memory_total",
            "Connections that were ended because all together held too much.",
            Incident::OutOfMemory,
        ),
        ("switchboard_handler_failures_total", "Handlers that failed or panicked.", Incident::Failed),
    ] {
        out.counter(name, help).value(total(incident));
    }
}

fn traffic(out: &mut Exposition, numbers: &Numbers) {
    let counts = numbers.census.counts;
    let name = "switchboard_messages_total";
    let mut messages = out.counter(name, "Messages received, and sent or about to be.");
    messages.with(&[("direction", "in")], counts.messages_in);
    messages.with(&[("direction", "out")], counts.messages_out);
    let mut bytes =
        out.counter("switchboard_bytes_total", "Bytes received and sent, as they were on the wire.");
    bytes.with(&[("direction", "in")], counts.bytes_in);
    bytes.with(&[("direction", "out")], counts.bytes_out);
}

/// Nothing, if there is none.
#[cfg(feature = "cluster")]
fn cluster(out: &mut Exposition, main: &MainServer) {
    let Some(standing) = main.standing() else { return };
    let help = "Whether Redis is reached, and keeps the lease of this node: 1 or 0.";
    out.gauge("switchboard_cluster_up", help).value(u8::from(standing.is_up));
    let help = "Nodes of the cluster that this one knows, itself included.";
    out.gauge("switchboard_cluster_nodes", help).value(standing.nodes);
    if let Some(renewed) = standing.renewed {
        let name = "switchboard_cluster_lease_age_seconds";
        out.gauge(name, "How long ago the lease of this node was renewed.").value(renewed.as_secs_f64());
    }
    for (name, help, count) in [
        (
            "switchboard_cluster_forwarded_total",
            "Messages sent to other nodes: pushes, and broadcasts that have reached one.",
            standing.forwarded,
        ),
        (
            "switchboard_cluster_received_total",
            "Messages of other nodes, for connections here.",
            standing.received,
        ),
        (
            "switchboard_cluster_unreachable_total",
            "Messages for other nodes that may not have reached these: Redis, or the node, was not reached.",
            standing.unreachable,
        ),
        (
            "switchboard_cluster_reconnects_total",
            "Connections to Redis that were made again; a node has two.",
            standing.reconnects,
        ),
        (
            "switchboard_cluster_late_dropped_total",
            "Messages of other nodes that came after these had given them up, and were dropped.",
            standing.late,
        ),
    ] {
        out.counter(name, help).value(count);
    }
}

#[cfg(not(feature = "__tls"))]
fn certificates(_: &mut Exposition, _: &Hub) {}

/// The first end of those that have the same name.
#[cfg(feature = "__tls")]
fn certificates(out: &mut Exposition, hub: &Hub) {
    let mut ends = std::collections::BTreeMap::new();
    for certificate in hub.certificates().unwrap_or_default() {
        let end = certificate.not_after.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let first = ends.entry((certificate.name, certificate.subject)).or_insert(end);
        *first = end.min(*first);
    }
    let name = "switchboard_certificate_expiry_timestamp_seconds";
    let mut certificates = out.gauge(name, "When certificates end, in seconds since 1970.");
    for ((file, subject), end) in &ends {
        certificates.with(&[("file", file), ("subject", subject)], end);
    }
}

/// The names that the collectors of Prometheus' own libraries have.
fn process(out: &mut Exposition, numbers: &Numbers) {
    let cpu = process::cpu_time().as_secs_f64();
    out.counter("process_cpu_seconds_total", "Processor time, of user and system.").value(cpu);
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Memory that is in use.", numbers.process.resident_bytes),
        ("process_virtual_memory_bytes", "Addresses that are in use.", numbers.process.virtual_bytes),
        ("process_open_fds", "Open descriptors.", process::open_descriptors()),
        ("process_max_fds", "How many descriptors there may be.", process::max_descriptors()),
        ("process_threads", "Threads.", numbers.process.threads),
    ] {
        if let Some(value) = value {
            out.gauge(name, help).value(value);
        }
    }
    if let Some(start) = process::start_time() {
        let help = "When the process was started, in seconds since 1970.";
        out.gauge("process_start_time_seconds", help).value(start);
    }
}
