//! Connections of proxies that speak the PROXY protocol: its header is received before all else, on the connection's own thread, and
//! within the time of the handshake.

use std::time::Duration;

use http::StatusCode;
use log::Level;

use super::{
    incoming::{Client, Incoming, More, Peer, is_plain_http},
    requests::{refuse_one_more, turn_away},
    shared::{Shared, Slot},
};
use crate::{
    codec::Stream,
    http::Refusal,
    incidents::Incident,
    proxied::{Proxied, parse},
    seldom::Seldom,
    shown::Shown,
};

/// A proxy that is set up in another way sends as many connections as it has clients.
static UNPROXIED: Seldom = Seldom::new(Duration::from_secs(10));

/// Learns from a proxy who its client is, and counts the connection for that one. `None`: the connection has ended.
#[cold]
#[inline(never)]
pub(super) fn read_proxy_header(shared: &Shared, incoming: &mut Incoming, mut slot: Slot) -> Option<Slot> {
    let proxy = Peer(incoming.peer);
    match incoming.read_proxy_header() {
        Ok(()) if slot.count_for(incoming.peer.map(|peer| peer.ip())) => return Some(slot),
        // Within TLS nothing can be said before its handshake: there the stream just ends.
        Ok(()) => refuse_one_more(shared, incoming, Client(incoming.peer, None), None),
        Err(NoHeader::Gone(why)) => {
            shared.incidents.note(Incident::NoRequest, format_args!("{proxy}: no request: {}", Shown(why)));
        }
        Err(NoHeader::Wrong(why)) => {
            UNPROXIED.log(
                Level::Warn,
                format_args!(
                    "{proxy}: refused: {why}: have it speak the PROXY protocol (HAProxy: send-proxy-v2, nginx: proxy_protocol on), or \
                     do not name it with proxy_protocol (--proxy-protocol)"
                ),
            );
            let why = "connections from this address have to begin with the PROXY protocol";
            turn_away(shared, incoming, slot, None, Refusal::new(StatusCode::BAD_REQUEST, why));
        }
    }
    None
}

/// Why there is no header of the PROXY protocol where one has to be.
enum NoHeader {
    /// Something else came.
    Wrong(&'static str),
    /// Nothing came, for this reason.
    Gone(String),
}

impl Incoming {
    /// Receives the PROXY protocol's header, which is before all else, and takes its addresses for those of the socket. Only what
    /// another server has already received has none.
    fn read_proxy_header(&mut self) -> Result<(), NoHeader> {
        if self.first.is_some() {
            return Ok(());
        }
        let gone = |why: &str| Err(NoHeader::Gone(why.into()));
        let mut received = Vec::new();
        let (proxied, length) = loop {
            match self.recv(&mut received, 1024, self.deadline) {
                Ok(More::Some) => {}
                Ok(More::Late) => return gone("took too long to send its PROXY header"),
                Ok(_) if received.is_empty() => return gone("left before a PROXY header"), // to see whether somebody listens
                Ok(_) => return Err(NoHeader::Wrong("its PROXY header is incomplete")),
                Err(e) => return gone(&e.to_string()),
            }
            match parse(&received) {
                Ok(Some(header)) => break header,
                Ok(None) => {}
                Err(why) => {
                    if is_plain_http(&received) {
                        self.stream = Stream::plain(); // it can be told
                    }
                    return Err(NoHeader::Wrong(why));
                }
            }
        };
        received.drain(..length);
        self.ahead = received;
        if let Proxied::Client { source, destination, is_secure } = proxied {
            self.peer = Some(source);
            self.proxied_to = Some(destination.ip());
            self.is_secure |= is_secure;
        }
        Ok(())
    }
}
