//! Connections that another HTTP server of the program has accepted, and that go on here. They are handed to the threads as the
//! accepting threads do it, with the same places; from a server that does not run yet they wait for that.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use super::{
    incoming::{Peer, Received},
    listener::Security,
    rejected::{refusal, reject_at_once, shutting_down},
    serve::Job,
    shared::{NoSlot, Shared},
    threads::Threads,
};
use crate::{
    connection::AdoptedStream,
    http::{Refusal, Request},
    sync::LockExt,
};

/// A connection that was handed over.
#[derive(Debug)]
pub(super) struct Adopted {
    stream: AdoptedStream,
    received: Box<Received>,
}

impl Adopted {
    pub(super) fn new(stream: AdoptedStream, request: Request, rest: Vec<u8>) -> Self {
        Self { stream, received: Box::new(Received { request: Box::new(request), rest }) }
    }

    /// The other end, as far as somebody knows it.
    fn peer(&self) -> Option<SocketAddr> {
        self.received.request.peer().or(self.stream.peer())
    }
}

/// Where adopted connections go.
#[derive(Debug, Default)]
pub(super) struct Adopter(Mutex<State>);

#[derive(Debug)]
enum State {
    /// The server does not run yet. As many wait as there are places.
    Waiting(Vec<Adopted>),
    Running(Arc<Threads>),
    Ended,
}

impl Default for State {
    fn default() -> Self {
        Self::Waiting(Vec::new())
    }
}

impl Adopter {
    pub(super) fn adopt(&self, shared: &Arc<Shared>, adopted: Adopted) {
        match &mut *self.0.locked() {
            State::Running(threads) if !shared.is_stopping() => hand_over(shared, threads, adopted),
            State::Waiting(all) if all.len() < shared.limits.max_connections => all.push(adopted),
            State::Waiting(_) => turn_away(shared, adopted, NoSlot::OfAll),
            State::Running(_) | State::Ended => reject(shared, adopted, shutting_down()),
        }
    }
}

/// What a server takes until it has ended, whether it ever runs or not: dropping this is its end, and nothing more is taken.
#[derive(Debug)]
pub(super) struct Adopting {
    pub(super) adopter: Arc<Adopter>,
    pub(super) shared: Arc<Shared>,
}

impl Adopting {
    /// The server runs: those who have waited are served.
    pub(super) fn start(&self, threads: &Arc<Threads>) {
        let mut state = self.adopter.0.locked();
        if let State::Waiting(all) = std::mem::replace(&mut *state, State::Running(threads.clone())) {
            all.into_iter().for_each(|adopted| hand_over(&self.shared, threads, adopted));
        }
    }
}

impl Drop for Adopting {
    fn drop(&mut self) {
        if let State::Waiting(all) = std::mem::replace(&mut *self.adopter.0.locked(), State::Ended) {
            all.into_iter().for_each(|adopted| reject(&self.shared, adopted, shutting_down()));
        }
    }
}

fn hand_over(shared: &Arc<Shared>, threads: &Arc<Threads>, adopted: Adopted) {
    let peer = adopted.peer();
    let slot = match shared.take_slot(peer.map(|peer| peer.ip())) {
        Ok(slot) => slot,
        Err(why) => return turn_away(shared, adopted, why),
    };
    let Adopted { stream, received } = adopted;
    let peer = stream.peer();
    let socket = match stream.into_socket() {
        Ok(socket) => socket,
        Err(e) => return log::error!("cannot adopt a connection: {e}"),
    };
    let job = Job { socket, peer, security: Security::None, tag: 0, slot, received: Some(received) };
    let Err(unserved) = threads.hand_over(job) else { return };
    match unserved.error {
        Some(e) => log::error!("{e}"),
        None => note(shared, peer, NoSlot::NoRoom),
    }
    if let Some(Job { socket, security, .. }) = unserved.job {
        let why = shared.response_to(refusal(NoSlot::NoRoom), None);
        reject_at_once(socket, &security, why, &shared.headers);
    }
}

fn turn_away(shared: &Shared, adopted: Adopted, why: NoSlot) {
    note(shared, adopted.peer(), why);
    reject(shared, adopted, refusal(why));
}

fn note(shared: &Shared, peer: Option<SocketAddr>, why: NoSlot) {
    shared.note_no_slot(why, format_args!("{}: handed over", Peer(peer)));
}

fn reject(shared: &Shared, adopted: Adopted, why: Refusal) {
    let why = shared.response_to(why, None);
    reject_at_once(adopted.stream.into_any_socket(), &Security::None, why, &shared.headers);
}
