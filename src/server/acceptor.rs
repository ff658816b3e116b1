//! The accepting threads, one for each listener: each waits for a client, accepts it, and hands its socket to a thread of
//! `threads`, which does TLS and HTTP. An accepting thread never waits for a client that it has accepted, and an error
//! does not end it unless the listener itself is gone. The thread that called `run` starts and stops them.

use std::{
    fs, io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::OwnedFd,
    io::Errno,
};

use super::{
    incoming::Peer,
    listener::Listener,
    rejected::{Rejected, refusal, reject_at_once},
    serve::Job,
    shared::{NoSlot, Shared},
    threads::Threads,
    wake_pipe::WakePipe,
};
use crate::{
    connection::Socket,
    deadline::timespec,
    pulse::{Beat, Beating},
    seldom::Seldom,
    sync::LockExt,
    thread::spawn,
};

/// How long accepting rests when the system has run out of something.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Errors of accepting are logged once in this time at most.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Enough for a logger. What is not used of it takes no memory.
const STACK: usize = 128 * 1024;

/// The accepting threads of a server. Dropping it stops them.
#[derive(Debug)]
pub(super) struct Acceptors {
    common: Arc<Common>,
    running: Vec<Running>,
}

/// One that has been started.
#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    wake: Arc<WakePipe>,
    _beating: Beating,
}

/// What the accepting threads share.
#[derive(Debug)]
struct Common {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
    stop: AtomicBool,
    /// Why one of them cannot accept any more.
    failure: Mutex<Option<io::Error>>,
    errors: Seldom,
}

impl Acceptors {
    pub(super) fn new(shared: Arc<Shared>, threads: Arc<Threads>) -> Self {
        let (stop, errors) = (AtomicBool::new(false), Seldom::new(LOG_INTERVAL));
        let common = Common { shared, threads, stop, failure: Mutex::default(), errors };
        Self { common: Arc::new(common), running: Vec::new() }
    }

    /// Starts a thread for each listener.
    pub(super) fn start(&mut self, listeners: Vec<Listener>) -> io::Result<()> {
        for listener in listeners {
            let wake = Arc::new(WakePipe::new()?);
            let (name, waking) = (listener.to_string(), wake.clone());
            let beating = self.common.shared.pulse.add(format!("accepting at {name}"), move || waking.wake());
            let acceptor = Acceptor {
                common: self.common.clone(),
                wake: wake.clone(),
                beat: beating.beat(),
                listener,
                spare: open_spare(),
                rejected: Rejected::default(),
            };
            let thread = spawn("switchboard-accept", STACK, move || acceptor.run_and_report())?;
            self.running.push(Running { thread, wake, _beating: beating });
        }
        Ok(())
    }

    /// Why one of them cannot accept any more, once. The thread that called `run` is woken when there is an answer.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.common.failure.locked().take()
    }

    /// Stops them, and closes the listeners. They do not wait for anything else, so this takes no time.
    pub(super) fn stop(&mut self) {
        self.common.stop.store(true, SeqCst);
        self.running.iter().for_each(|running| running.wake.wake());
        for running in self.running.drain(..) {
            // It fails if a logger panicked, which has been told on standard error.
            let _ = running.thread.join();
        }
    }
}

impl Drop for Acceptors {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An accepting thread.
struct Acceptor {
    common: Arc<Common>,
    /// By which it is stopped, and asked whether it goes on.
    wake: Arc<WakePipe>,
    beat: Arc<Beat>,
    listener: Listener,
    /// When the system has no descriptor left, this one is given up for a moment to tell a client so.
    spare: Option<OwnedFd>,
    rejected: Rejected,
}

impl Acceptor {
    fn run_and_report(mut self) {
        let common = self.common.clone();
        let ran = catch_unwind(AssertUnwindSafe(move || self.run()));
        // There is no user code in it but a logger.
        let ran = ran.unwrap_or_else(|_| Err(io::Error::other("the accepting thread panicked")));
        if let Err(e) = ran {
            *common.failure.locked() = Some(e);
            common.shared.supervisor.wake();
        }
    }

    /// Accepts until it is stopped.
    ///
    /// # Errors
    /// Why it cannot accept any more.
    fn run(&mut self) -> io::Result<()> {
        loop {
            let timeout = self.rejected.close_overdue();
            let event = self.wait(timeout)?;
            if let Event::Woken = event {
                self.wake.reset(); // before it looks what for
            }
            self.beat.come_by();
            if let Event::Client = event {
                self.accept()?;
            }
            if self.common.stop.load(SeqCst) {
                return Ok(());
            }
        }
    }

    /// Waits for a client. A thread in a blocking `accept` could not be woken for its end without a signal, or without
    /// shutting down a socket that may be shared with another process.
    fn wait(&self, timeout: Option<Duration>) -> io::Result<Event> {
        let (wake, listener) = (&*self.wake, &self.listener);
        let mut fds = [PollFd::new(wake, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        match poll(&mut fds, timeout.map(timespec).as_ref()) {
            Ok(0) | Err(Errno::INTR) => Ok(Event::Timeout),
            Ok(_) if fds[0].revents().is_empty() => Ok(Event::Client),
            Ok(_) => Ok(Event::Woken),
            Err(e) => Err(e.into()),
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        match self.listener.accept() {
            Ok((socket, peer)) => self.admit(socket, peer),
            // Another process that shares the listener was faster, or the client has left.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || concerns_one_client(&e) => {
                log::debug!("accept: {e}")
            }
            Err(e) if is_exhaustion(&e) => self.on_exhaustion(&e),
            Err(e) if is_final(&e) => return Err(e),
            Err(e) => self.back_off(&format!("cannot accept: {e}")),
        }
        Ok(())
    }

    /// Hands a client's socket to a thread, if there is a place for it.
    fn admit(&mut self, socket: Socket, peer: Option<SocketAddr>) {
        let shared = &self.common.shared;
        let slot = match shared.take_slot(peer.map(|peer| peer.ip())) {
            Ok(slot) => slot,
            Err(why) => {
                shared.note_no_slot(why, Peer(peer));
                let why = shared.response_to(refusal(why), None);
                return self.rejected.add(socket, &self.listener.security, why, &shared.headers);
            }
        };
        let security = self.listener.security.clone();
        let job = Job { socket, peer, security, tag: self.listener.tag, slot, received: None };
        let Err(unserved) = self.common.threads.hand_over(job) else { return };
        let why = NoSlot::NoRoom;
        match unserved.error {
            // The next client may come at once: each is one attempt, and costs what it costs.
            Some(e) => {
                self.common.errors.log(log::Level::Error, format_args!("{e}"));
                shared.idle.give_up_all();
            }
            None => shared.note_no_slot(why, Peer(peer)),
        }
        if let Some(Job { socket, security, .. }) = unserved.job {
            let why = shared.response_to(refusal(why), None);
            self.rejected.add(socket, &security, why, &shared.headers);
        }
    }

    /// The system has no descriptor or no memory for the client that waits: it is told so by means of the spare one.
    fn on_exhaustion(&mut self, e: &io::Error) {
        self.spare = None;
        if let Ok((socket, _)) = self.listener.accept() {
            let shared = &self.common.shared;
            let why = shared.response_to(refusal(NoSlot::OfAll), None);
            reject_at_once(socket, &self.listener.security, why, &shared.headers);
        }
        self.spare = open_spare();
        self.back_off(&format!("cannot accept: {e}"));
    }

    /// Trying again at once would only burn the processor, and fill the log. What connections between two requests have of the
    /// system may be what is missing.
    fn back_off(&mut self, why: &str) {
        self.common.errors.log(log::Level::Error, format_args!("{why}"));
        self.common.shared.idle.give_up_all();
        // If it fails, the next wait for a client fails, too.
        let _ = self.wake.wait_and_keep(Some(BACK_OFF));
        // Another thread may have taken the descriptor that was given up.
        self.spare = self.spare.take().or_else(open_spare);
    }
}

/// What an accepting thread was woken for.
enum Event {
    Client,
    Timeout,
    Woken,
}

/// The client left before it was accepted, or the network had an error of its connection only (accept(2)).
fn concerns_one_client(e: &io::Error) -> bool {
    use Errno as E;
    matches!(
        Errno::from_io_error(e),
        Some(E::CONNABORTED | E::INTR | E::PROTO | E::PERM | E::NETDOWN | E::NETUNREACH)
            | Some(E::HOSTDOWN | E::HOSTUNREACH | E::NOPROTOOPT | E::OPNOTSUPP)
    )
}

pub(super) fn is_exhaustion(e: &io::Error) -> bool {
    let errno = Errno::from_io_error(e);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// The socket does not listen any more, such as when somebody who shares it has shut it down (accept(2)).
fn is_final(e: &io::Error) -> bool {
    matches!(Errno::from_io_error(e), Some(Errno::INVAL | Errno::BADF | Errno::NOTSOCK))
}

fn open_spare() -> Option<OwnedFd> {
    fs::File::open("/dev/null").ok().map(Into::into)
}
