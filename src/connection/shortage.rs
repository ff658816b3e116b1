//! When all connections together hold too much: those that hold most are ended.
//!
//! To find them takes only the locks of those that are ending. Whoever sees the shortage relieves it, with no lock held: the gateway
//! after each turn of a connection, and whoever pushes.

use std::{cmp::Reverse, sync::Arc};

use super::parts::{Connection, Context};
use crate::{buffered::kib, error::ClosedBy, incidents::Incident, message::CloseCode, sync::LockExt};

const SHORT_OF_MEMORY: &str = "the server is short of memory";
const CLIENT_SHORT_OF_MEMORY: &str = "the client is short of memory";

impl Context {
    /// Ends connections, if all together hold too much.
    pub(crate) fn relieve(&self) {
        if self.buffered.is_short() {
            self.relieve_shortage();
        }
    }

    #[inline(never)]
    fn relieve_shortage(&self) {
        let _relief = self.buffered.relief.locked();
        self.buffered.take_shortage();
        // Others may hold more meanwhile: then it is looked anew who holds most, rather than at those that hold little.
        while let excess @ 1.. = self.buffered.excess() {
            let largest = self.largest();
            let mut freed = largest.leaving;
            if freed >= excess || largest.all.is_empty() {
                break;
            }
            for (held, connection) in largest.all {
                if freed >= excess {
                    break;
                }
                freed += held as usize;
                connection.end_for_memory(largest.is_shared);
            }
        }
    }

    /// All connections that hold something, those first whose end frees most: of what only they hold, or, where that is the
    /// smaller part of all, with what they share.
    fn largest(&self) -> Largest {
        let (over, open): (Vec<_>, Vec<_>) =
            self.registrar.all().into_iter().partition(|connection| connection.is_cut());
        let leaving: usize = over.iter().map(|connection| connection.held().0 as usize).sum();
        let open: Vec<_> = open.into_iter().map(|connection| (connection.held(), connection)).collect();
        let own = leaving + open.iter().map(|((own, _), _)| *own as usize).sum::<usize>();
        let is_shared = self.buffered.sum() > 2 * own;
        let held = |(own, shared): (u32, u32)| if is_shared { own.saturating_add(shared) } else { own };
        let mut all: Vec<_> = open.into_iter().map(|(of, connection)| (held(of), connection)).collect();
        all.retain(|(held, _)| *held > 0);
        all.sort_unstable_by_key(|(held, _)| Reverse(*held));
        Largest { all, is_shared, leaving }
    }
}

/// Connections, each with how many KiB it holds.
struct Largest {
    all: Vec<(u32, Arc<Connection>)>,
    /// Most of it is shared.
    is_shared: bool,
    /// How many KiB those hold that are over: that goes when their handlers and the gateway are done with them, and whoever waited for
    /// it here might be one of these.
    leaving: usize,
}

impl Connection {
    /// Whether it is over. To find that out of one that is open takes no lock.
    fn is_cut(self: &Arc<Self>) -> bool {
        self.reason().is_some() && self.socket().is_none()
    }

    /// How many KiB it holds that nobody else does, and that others may hold, too.
    fn held(&self) -> (u32, u32) {
        let (own, all) =
            self.outbox.get().map_or((0, 0), |outbox| (kib(outbox.own_bytes()), kib(outbox.bytes())));
        let own = own.saturating_add(self.held_by_core.get()).saturating_add(self.held_by_inbox.get());
        // What its socket did not take may be shared.
        (own, all.saturating_add(u32::from(self.is_blocked())))
    }

    /// Ends it with 1013, and frees what it holds. If that is not much less afterwards, because it does not take what it was
    /// sent, or if it was ending before, it is cut.
    fn end_for_memory(self: &Arc<Self>, is_shared: bool) {
        let (held, _) = self.held();
        let id = self.id().short();
        let text = format_args!("{id}: ended, since it holds most: {held} KiB");
        let why = if self.us() == ClosedBy::Client {
            log::warn!("{text}"); // nobody sums up what becomes of clients, and they are the program's own
            CLIENT_SHORT_OF_MEMORY
        } else {
            self.context.incidents.note(Incident::OutOfMemory, text);
            SHORT_OF_MEMORY
        };
        if self.reason().is_some() {
            return self.abort(self.us(), why);
        }
        self.disconnect(CloseCode::TRY_AGAIN, why);
        self.lock().protocol.forget_messages();
        // Whoever has the inbox waits in `recv`, and has nothing in it.
        if let Some(mut inbox) = self.inbox.try_locked() {
            inbox.discard();
            self.count(&inbox);
        }
        if self.held().0 > held / 2 || is_shared && self.is_blocked() {
            self.abort(self.us(), why);
        }
    }
}
