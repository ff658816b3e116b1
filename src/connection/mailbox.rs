//! What a connection tells the gateway, and how the gateway is woken for it.
//!
//! A connection is in the gateway's queue at most once, and says no more than that it is to be looked at: the gateway then
//! sees for itself what there is to do. Everything that two threads have to agree upon is in two numbers:
//!
//! - the mailbox's bits, of one connection. `QUEUED` is set by whoever puts it into the queue, and taken away by the gateway
//!   *before* it looks: so what changed before is seen, and what changes later queues it anew. Others rely on whoever set it;
//!   by `NOW` and `SOON` they tell that one, which may be about to queue it, that they are in a greater hurry. `COLLECTED` and
//!   `FLUSHING` belong together: who collects output while the gateway is flushing tells nobody, and the gateway stops
//!   flushing only where nothing was collected. `WATCHED` says that a thread may be busy, so that the gateway looks at it every
//!   tick, and `LISTED` that it does already.
//! - how deep the gateway sleeps. It says so *before* it looks into its queue for the last time, and whoever queues something
//!   looks *after* that whether the gateway has to be woken: one of the two sees the other.
//!
//! Where one of the two has to see the other, fences see to it. Beside them only those who set and clear bits are ordered.
//!
//! `tests/interleavings.rs` tries this in every order.

use crate::sync::{
    Arc,
    atomic::{
        AtomicU8,
        Ordering::{AcqRel, Relaxed, SeqCst},
        fence,
    },
    queue::Sender,
};

const QUEUED: u8 = 1;
const COLLECTED: u8 = 2;
const FLUSHING: u8 = 4;
const WATCHED: u8 = 8;
const NOW: u8 = 16;
const SOON: u8 = 32;
const LISTED: u8 = 64;

/// The bits of one connection.
#[derive(Debug)]
pub(crate) struct Mailbox(AtomicU8);

/// What is sent to the gateway.
pub(crate) trait Addressed {
    fn mailbox(&self) -> &Mailbox;
}

impl Mailbox {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    fn set(&self, bit: u8) -> u8 {
        self.0.fetch_or(bit, AcqRel)
    }

    fn clear(&self, bit: u8) -> u8 {
        self.0.fetch_and(!bit, AcqRel)
    }

    /// Output was collected. Returns whether the gateway has to be told.
    pub(crate) fn collect(&self) -> bool {
        self.0.load(Relaxed) & COLLECTED == 0 && self.set(COLLECTED) & (COLLECTED | FLUSHING) == 0
    }

    /// The gateway takes it out of its queue, and looks at it now.
    pub(crate) fn take(&self) {
        self.clear(QUEUED | NOW | SOON);
    }

    /// How soon it is to be looked at, as far as anyone has said.
    fn within(&self) -> Within {
        match self.0.load(Relaxed) {
            bits if bits & NOW != 0 => Within::Now,
            bits if bits & SOON != 0 => Within::Millisecond,
            _ => Within::Tick,
        }
    }

    /// Whether the gateway has to flush collected output from now on. If so, it does.
    pub(crate) fn starts_flushing(&self) -> bool {
        let bits = self.0.load(Relaxed);
        bits & COLLECTED != 0 && bits & FLUSHING == 0 && self.set(FLUSHING) & FLUSHING == 0
    }

    /// Whether output was collected since this was last asked.
    pub(crate) fn take_collected(&self) -> bool {
        self.0.load(Relaxed) & COLLECTED != 0 && self.clear(COLLECTED) & COLLECTED != 0
    }

    /// Whether the gateway need not flush any more. If so, the next output that is collected is told again.
    pub(crate) fn stops_flushing(&self) -> bool {
        // Who collected before has relied on it.
        let stops = self.clear(FLUSHING) & COLLECTED == 0;
        if !stops {
            self.set(FLUSHING);
        }
        stops
    }

    /// Collected output is flushed by somebody else for a while, in place of the gateway: see [`stops_flushing`].
    ///
    /// [`stops_flushing`]: Self::stops_flushing
    pub(crate) fn flushes(&self) -> bool {
        self.set(FLUSHING) & FLUSHING == 0
    }

    /// A thread may be busy from now on. Returns whether the gateway has to be told.
    ///
    /// It has left what shows the gateway that it is not busy before it calls this.
    pub(crate) fn watch(&self) -> bool {
        fence(SeqCst); // or we might look before we have left
        self.0.load(Relaxed) & WATCHED == 0 && self.set(WATCHED) & WATCHED == 0
    }

    /// Whether the gateway has to look at the thread from now on. If so, it does.
    pub(crate) fn starts_watching(&self) -> bool {
        let bits = self.0.load(Relaxed);
        bits & WATCHED != 0 && bits & LISTED == 0 && self.set(LISTED) & LISTED == 0
    }

    /// The gateway stops watching, if the thread is still not busy afterwards.
    pub(crate) fn unwatch(&self, is_busy: impl FnOnce() -> bool) -> bool {
        self.clear(WATCHED | LISTED);
        fence(SeqCst);
        // If the thread became busy before that, it has told nobody; and if it has told us since, both is as well.
        let busy = is_busy();
        if busy {
            self.set(WATCHED | LISTED);
        }
        !busy
    }
}

/// How deep the gateway sleeps. Whoever wants it earlier than it would wake by itself has to wake it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Sleep {
    /// It does not, and looks into its queue before it does.
    Awake,
    /// For a millisecond at most.
    Nap,
    /// For a tick at most, which is a second unless limits are shorter.
    Tick,
    /// For longer.
    Long,
}

/// Within what time the gateway has to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Within {
    Now = Sleep::Awake as u8,
    Millisecond = Sleep::Nap as u8,
    Tick = Sleep::Tick as u8,
}

impl Within {
    fn bit(self) -> u8 {
        match self {
            Self::Now => NOW,
            Self::Millisecond => SOON,
            Self::Tick => 0,
        }
    }
}

/// The way to a gateway.
pub(crate) struct Post<T> {
    queue: Sender<Arc<T>>,
    sleep: AtomicU8,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl<T: Addressed> Post<T> {
    pub(crate) fn new(queue: Sender<Arc<T>>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { queue, sleep: AtomicU8::new(Sleep::Awake as u8), wake: Box::new(wake) }
    }

    /// The gateway shall look at this within some time.
    pub(crate) fn send(&self, item: &Arc<T>, within: Within) {
        let queues = item.mailbox().set(QUEUED | within.bit()) & QUEUED == 0;
        if queues {
            // It fails when the gateway has ended: then the server has shut down, and has ended every connection itself.
            let _ = self.queue.send(item.clone());
        }
        // Also if it was queued already: perhaps by someone who was in no hurry.
        fence(SeqCst);
        // And someone in a hurry may have relied on this, and have woken the gateway before there was something in its queue.
        let within = if queues { within.min(item.mailbox().within()) } else { within };
        let wakes = |sleep| sleep > within as u8;
        if wakes(self.sleep.load(Relaxed)) && wakes(self.sleep.swap(Sleep::Awake as u8, Relaxed)) {
            (self.wake)();
        }
    }

    /// Wakes the gateway, whatever it waits for.
    pub(crate) fn wake(&self) {
        (self.wake)();
    }

    /// The gateway is about to sleep; it looks into its queue once more before it does, and if there is something, it
    /// [rises](Self::rise) instead.
    pub(crate) fn sleep(&self, sleep: Sleep) {
        self.sleep.store(sleep as u8, Relaxed);
        fence(SeqCst);
    }

    /// The gateway is awake.
    pub(crate) fn rise(&self) {
        self.sleep.store(Sleep::Awake as u8, Relaxed);
    }
}

impl<T> std::fmt::Debug for Post<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Post")
    }
}
