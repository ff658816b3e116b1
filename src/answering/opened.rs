//! The shared connections that a link has opened, and what it has read of them and not acknowledged.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use crate::{
    connection::{Connection, Loan},
    error::Result,
    message::Message,
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
    pub(super) connection: Arc<Connection>,
    /// It has read, and has not read on: see [`Connection::read`].
    is_answering: AtomicBool,
    /// It was released, or the link has ended: reads that still wait return.
    is_over: AtomicBool,
    last: AtomicU64,
    deliveries: Mutex<HashMap<u64, Loan>>,
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
    /// The handle of a connection. `None`: there are too many.
    pub(super) fn add(&self, connection: Arc<Connection>) -> Option<u32> {
        let mut table = self.table.locked();
        if table.is_closed || table.handles.len() >= MOST {
            return None;
        }
        let used = &table.handles;
        let number = (1..=u32::MAX).map(|i| table.last.wrapping_add(i)).find(|n| !used.contains_key(n))?;
        table.last = number;
        table.handles.insert(number, Arc::new(Handle::new(connection)));
        Some(number)
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
fn give_back(mut deliveries: Vec<Loan>) {
    deliveries.sort_unstable_by_key(Loan::place);
    deliveries.into_iter().for_each(drop);
}

impl Handle {
    fn new(connection: Arc<Connection>) -> Self {
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
        let delivery = self.connection.read_loan_unless(over, len, timeout, answering)?;
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
        delivery.into_iter().for_each(Loan::give_back_unseen);
    }

    /// Nobody reads by it any more. What it has left.
    fn end(&self) -> impl Iterator<Item = Loan> + use<> {
        self.is_over.store(true, SeqCst);
        let deliveries = std::mem::take(&mut *self.deliveries.locked());
        self.connection.wake_all_readers();
        deliveries.into_values()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.is_answering.load(Relaxed) {
            self.connection.end_answering(&self.is_answering);
        }
    }
}
