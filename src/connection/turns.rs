//! Threads whose clients send what takes long to decode take turns at it, as many at a time as there are processors. So the
//! gateway, and threads whose clients send little, do not have to share the processors with a hundred others.

use std::thread::available_parallelism;

use crossbeam_channel::{Receiver, Sender, bounded};

/// One token for each processor; whoever waits for one gets it in the order of coming.
#[derive(Debug)]
pub(crate) struct Turns {
    give: Sender<()>,
    take: Receiver<()>,
}

/// Permission to decode a piece. Dropping it lets another thread have its turn.
pub(super) struct Turn<'a>(&'a Sender<()>);

impl Turns {
    pub(crate) fn new() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        let (give, take) = bounded(processors);
        for _ in 0..processors {
            let _ = give.try_send(()); // there is room for so many
        }
        Self { give, take }
    }

    /// Waits for one: a few pieces of work at most for each thread that waits, too.
    pub(super) fn wait(&self) -> Turn<'_> {
        let _ = self.take.recv(); // it does not fail, since the other end is here
        Turn(&self.give)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let _ = self.0.try_send(()); // the room that it was taken from
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        thread,
    };

    use super::*;

    #[test]
    fn no_more_at_a_time_than_there_are_processors_and_each_has_its_turn() {
        let processors = available_parallelism().unwrap().get();
        let (turns, now, most) = (Turns::new(), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..processors * 4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _turn = turns.wait();
                        most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                        thread::yield_now();
                        now.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
        assert!((1..=processors).contains(&most.into_inner()));
        assert_eq!(turns.take.len(), processors, "all are given back");
    }
}
