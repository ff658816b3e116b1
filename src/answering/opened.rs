//! The shared connections that a link has opened, and what it has read of them and not acknowledged.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

#[cfg(feature = "cluster")]
use crate::{answering::LOOK, deadline::Deadline, error::Error, websocket::WebSocket};
use crate::{
    connection::{About, Connection},
    delivery::Delivery,
    error::{CloseReason, Result},
    message::{CloseCode, Message},
    sync::{AtomicU64, LockExt},
    wire::{self, Answer},
};

/// Connections that one link may have open.
const MOST: usize = 4096;

/// All that a link has opened.
#[derive(Default)]
pub(super) struct Handles {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: u32,
    handles: HashMap<u32, Arc<Handle>>,
    is_closed: bool,
}

/// A connection that was opened: what a [`WebSocket`](crate::WebSocket) is in this process.
pub(super) struct Handle {
    pub(super) connection: Reached,
    /// It has read, and has not read on: see [`Connection::read`].
    is_answering: AtomicBool,
    /// It was released, or the link has ended: reads that still wait return.
    is_over: AtomicBool,
    last: AtomicU64,
    /// In the order in which they were read.
    deliveries: Mutex<BTreeMap<u64, Delivery>>,
}

/// A connection of this node, or of another one, which is asked.
pub(super) enum Reached {
    Here(Arc<Connection>),
    #[cfg(feature = "cluster")]
    Elsewhere(WebSocket),
}

/// The same of both.
macro_rules! reached {
    ($reached:expr, $connection:ident => $here:expr, $ws:ident => $elsewhere:expr) => {
        match $reached {
            Reached::Here($connection) => $here,
            #[cfg(feature = "cluster")]
            Reached::Elsewhere($ws) => $elsewhere,
        }
    };
}

impl Reached {
    /// Whether somebody else has to be asked, who may take a while.
    pub(super) fn is_elsewhere(&self) -> bool {
        reached!(self, _connection => false, _ws => true)
    }

    pub(super) fn about(&self) -> &About {
        reached!(self, connection => connection.about(), ws => ws.about())
    }

    pub(super) fn write(&self, message: Message) -> Result<()> {
        reached!(self, connection => connection.write(message, false), ws => ws.write(message))
    }

    pub(super) fn flush(&self) -> Result<()> {
        reached!(self, connection => connection.flush_all(), ws => ws.flush())
    }

    pub(super) fn close(&self, code: CloseCode, text: &str) {
        reached!(self, connection => connection.close(code, text), ws => ws.close(code, text));
    }

    pub(super) fn reason(&self) -> Option<CloseReason> {
        reached!(self, connection => connection.reason().cloned(), ws => ws.close_reason())
    }

    pub(super) fn set_session_end_on_close(&self, on: bool) {
        reached!(
            self,
            connection => connection.session_end_on_close.store(on, Relaxed),
            ws => ws.set_session_end_on_close(on)
        );
    }

    pub(super) fn session_end_on_close(&self) -> bool {
        reached!(
            self,
            connection => connection.session_end_on_close.load(Relaxed),
            ws => ws.session_end_on_close()
        )
    }

    pub(super) fn set_binary_data(&self, on: bool) {
        reached!(self, connection => connection.binary_data.store(on, Relaxed), ws => ws.set_binary_data(on));
    }

    pub(super) fn binary_data(&self) -> bool {
        reached!(self, connection => connection.binary_data.load(Relaxed), ws => ws.binary_data())
    }
}

/// What was read, to be told.
pub(super) struct Read {
    number: u64,
    message: Message,
    at_end: bool,
    redelivered: bool,
}

impl Read {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn answer(&self) -> Answer<'_> {
        Answer::Delivery(wire::Delivery {
            delivery: self.number,
            at_end: self.at_end,
            redelivered: self.redelivered,
            data: (&self.message).into(),
        })
    }
}

impl Handles {
    /// The handle of a connection, and its number. `None`: there are too many.
    pub(super) fn add(&self, connection: Reached) -> Option<(u32, Arc<Handle>)> {
        let mut table = self.table.locked();
        if table.is_closed || table.handles.len() >= MOST {
            return None;
        }
        let used = &table.handles;
        let number = (1..=u32::MAX).map(|i| table.last.wrapping_add(i)).find(|n| !used.contains_key(n))?;
        table.last = number;
        let handle = Arc::new(Handle::new(connection));
        table.handles.insert(number, handle.clone());
        Some((number, handle))
    }

    pub(super) fn get(&self, handle: u32) -> Option<Arc<Handle>> {
        self.table.locked().handles.get(&handle).cloned()
    }

    /// What was read by it, and not acknowledged, goes back.
    pub(super) fn release(&self, handle: u32) {
        let removed = self.table.locked().handles.remove(&handle);
        give_back(removed.iter().flat_map(|handle| handle.end()).collect());
    }

    /// Releases all of them, and those that would still come.
    pub(super) fn close(&self) {
        let mut table = self.table.locked();
        table.is_closed = true;
        let handles = std::mem::take(&mut table.handles);
        drop(table);
        give_back(handles.values().flat_map(|handle| handle.end()).collect());
    }
}

/// In their order: somebody may wait for them, and get each as soon as it is back.
fn give_back(mut deliveries: Vec<Delivery>) {
    deliveries.sort_by_key(Delivery::place);
    deliveries.into_iter().for_each(drop);
}

impl Handle {
    fn new(connection: Reached) -> Self {
        Self {
            connection,
            is_answering: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            last: AtomicU64::new(0),
            deliveries: Mutex::default(),
        }
    }

    /// Reads at least once. What it returns is kept here under its number, until it is [settled](Self::settle). `None`: the handle
    /// was released.
    ///
    /// # Errors
    /// As [`WebSocket::read_delivery`](crate::WebSocket::read_delivery).
    pub(super) fn read(&self, len: usize, timeout: Duration) -> Result<Option<Read>> {
        let (over, answering) = (&self.is_over, &self.is_answering);
        let delivery = reached!(
            &self.connection,
            connection => connection.read_loan_unless(over, len, timeout, answering)?.map(Delivery::local),
            ws => read_unless(ws, over, len, timeout)?
        );
        let Some(delivery) = delivery else { return Ok(None) };
        let number = self.last.fetch_add(1, Relaxed) + 1;
        let read = Read {
            number,
            message: Message::clone(&delivery),
            at_end: delivery.at_end(),
            redelivered: delivery.redelivered(),
        };
        // It is kept before anyone is told of it, who may be fast.
        let mut deliveries = self.deliveries.locked();
        if self.is_over.load(SeqCst) {
            drop(deliveries);
            delivery.give_back_unseen();
            return Ok(None);
        }
        deliveries.insert(number, delivery);
        Ok(Some(read))
    }

    /// A delivery is done with, or goes back. One that is not there was settled before.
    pub(super) fn settle(&self, delivery: u64, is_done: bool) {
        let delivery = self.deliveries.locked().remove(&delivery);
        match delivery {
            Some(delivery) if is_done => drop(delivery.ack()),
            delivery => drop(delivery),
        }
    }

    /// A delivery goes back of which nobody was told.
    pub(super) fn give_back_unseen(&self, delivery: u64) {
        let delivery = self.deliveries.locked().remove(&delivery);
        delivery.into_iter().for_each(Delivery::give_back_unseen);
    }

    /// Nobody reads by it any more. What it has left.
    fn end(&self) -> impl Iterator<Item = Delivery> + use<> {
        self.is_over.store(true, SeqCst);
        let deliveries = std::mem::take(&mut *self.deliveries.locked());
        reached!(&self.connection, connection => connection.wake_all_readers(), _ws => ());
        deliveries.into_values()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.is_answering.load(Relaxed) {
            reached!(&self.connection, connection => connection.end_answering(&self.is_answering), _ws => ());
        }
    }
}

/// Reads from a connection of another node, which is asked again and again, so that it has nothing to tell when nobody wants it any more.
#[cfg(feature = "cluster")]
fn read_unless(ws: &WebSocket, over: &AtomicBool, len: usize, timeout: Duration) -> Result<Option<Delivery>> {
    let deadline = Deadline::after(timeout);
    loop {
        let left = deadline.remaining().unwrap_or_default();
        match ws.read_delivery(len, left.min(LOOK)) {
            Err(Error::Timeout) if over.load(SeqCst) => return Ok(None),
            Err(Error::Timeout) if deadline.remaining().is_some() => {}
            read => return read.map(Some),
        }
    }
}
