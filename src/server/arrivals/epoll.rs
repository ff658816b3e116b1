//! The system's queue of listeners that have somebody gives each of them to one thread, and says nothing more of it until
//! it is told to.

use rustix::{
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    fd::AsFd,
};

use super::*;

const BELL: u64 = u64::MAX;

const ONCE: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);

#[derive(Debug)]
pub(in crate::server) struct Arrivals(OwnedFd);

impl Arrivals {
    pub(in crate::server) fn new(listeners: &[Listener], bell: &Bell) -> io::Result<Self> {
        let queue = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&queue, &bell.read, EventData::new_u64(BELL), EventFlags::IN)?;
        for (index, listener) in listeners.iter().enumerate() {
            epoll::add(&queue, listener.as_fd(), EventData::new_u64(index as u64), ONCE)?;
        }
        Ok(Self(queue))
    }

    /// Waits for so long at most, or until the bell rings, for a listener that has somebody. Whoever gets one says when
    /// it is [`free`](Self::free) again.
    pub(in crate::server) fn wait(
        &self,
        _: &[Listener],
        _: &Bell,
        timeout: Option<Duration>,
    ) -> io::Result<Option<usize>> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(BELL) }];
        match epoll::wait(&self.0, &mut events, timeout.map(timespec).as_ref()) {
            Ok(0) | Err(Errno::INTR) => Ok(None),
            Ok(_) => {
                let [Event { data, .. }] = events;
                Ok((data.u64() != BELL).then_some(data.u64() as usize))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The next one who comes to this listener may be given to anyone.
    pub(in crate::server) fn free(&self, index: usize, listener: &Listener) -> io::Result<()> {
        Ok(epoll::modify(&self.0, listener.as_fd(), EventData::new_u64(index as u64), ONCE)?)
    }
}
