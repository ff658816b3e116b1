//! Where it would listen.

use std::io::ErrorKind;

use switchboard::ServerError;

use super::finding::{Finding, Level};
use crate::command::args::Serve;

pub(super) struct Place {
    option: &'static str,
    address: String,
    pub(super) is_managing: bool,
}

/// Beside sockets that were passed there is no default.
pub(super) fn of(args: &Serve, are_passed: bool) -> Vec<Place> {
    let place =
        |option, is_managing| move |address: &str| Place { option, address: address.to_owned(), is_managing };
    #[allow(unused_mut, reason = "without TLS and management there are no others")]
    let mut places: Vec<_> = if are_passed { args.listen_beside() } else { args.listen() }
        .into_iter()
        .map(place("listen", false))
        .collect();
    #[cfg(feature = "__tls")]
    places.extend(args.tls.tls_listen.iter().map(String::as_str).map(place("tls-listen", false)));
    #[cfg(feature = "__tls")]
    places
        .extend(args.tls.redirect_addresses().iter().map(String::as_str).map(place("redirect-port", false)));
    #[cfg(feature = "manage")]
    {
        places.extend(args.manage.manage.iter().map(String::as_str).map(place("manage", true)));
        let read_only = args.manage.manage_read_only.iter().map(String::as_str);
        places.extend(read_only.map(place("manage-read-only", true)));
        #[cfg(feature = "__tls")]
        places.extend(args.manage.manage_tls.iter().map(String::as_str).map(place("manage-tls", true)));
    }
    places
}

/// What there is to say of them, and of all else that would be refused.
pub(super) fn look(places: &[Place], errors: &[ServerError], is_running: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for e in errors {
        if !(is_running && taken(e).is_some()) {
            findings.push(Finding::new(Level::Error, about(e, places), &e.to_string()));
        }
    }
    for Place { option, address, .. } in places {
        let is_in_use = errors.iter().any(|e| taken(e) == Some(address));
        let has_failed = errors.iter().any(|e| failed(e) == Some(address));
        let (level, text) = match (is_running, is_in_use) {
            (true, true) => (Level::Ok, "somebody listens there, as it is to be"),
            (true, false) if !has_failed && !has_any_port(address) => {
                (Level::Error, "nobody listens there: the server does not run, or not with these options")
            }
            (false, false) if !has_failed => (Level::Ok, "it can be listened on"),
            _ => continue,
        };
        findings.push(Finding::new(level, option, &format!("{address}: {text}")));
    }
    findings
}

/// The address, if it could not be bound.
fn failed(e: &ServerError) -> Option<&String> {
    if let ServerError::Bind(e) = e { Some(&e.address) } else { None }
}

/// The address, if another process has it.
fn taken(e: &ServerError) -> Option<&String> {
    match e {
        ServerError::Bind(e)
            if e.source.kind() == ErrorKind::AddrInUse && e.source.raw_os_error().is_some() =>
        {
            Some(&e.address)
        }
        _ => None,
    }
}

fn about(e: &ServerError, places: &[Place]) -> &'static str {
    let place = failed(e).and_then(|address| places.iter().find(|place| place.address == *address));
    match (e, place) {
        (_, Some(place)) => place.option,
        (ServerError::Tls(_), _) => "tls",
        _ => "options",
    }
}

/// Which one it is, only the server knows.
fn has_any_port(address: &str) -> bool {
    !address.starts_with("unix:") && address.ends_with(":0")
}
