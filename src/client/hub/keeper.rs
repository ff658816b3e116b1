//! The thread of a link: receives answers, and connects again whenever the connection has ended, as long as anybody has the hub.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    HubError,
    builder::{Greeted, Place},
};
use crate::{
    client::reconnecting::pace::{Advice, Delays, Pace, chance},
    connection::READ_TIMEOUT,
    error::{CloseReason, Error},
    limits::Limits,
    message::Message,
    remote::Link,
    shown::Shown,
    thread,
    wire::Malformed,
};

/// Other processes wait for it, on the same machine mostly, so it is tried often.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// After a link that has lasted for so long, the next one is tried at once.
const STEADY: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    link: Arc<Link>,
    place: Place,
    pace: Pace,
}

impl Keeper {
    /// With the connection that there is.
    pub(super) fn start(link: Arc<Link>, place: Place, first: Greeted) -> io::Result<()> {
        let delays = Delays {
            first: FIRST_DELAY,
            longest: LONGEST_DELAY,
            steady: STEADY,
            longest_asked: LONGEST_DELAY,
        };
        link.begin(&first.line);
        let keeper = Self { link, place, pace: Pace::new(delays) };
        let _nobodys = thread::Belonging::to_none(); // whichever server's thread this is
        let stack_size = Limits::default().stack_size;
        thread::spawn("switchboard-hub", stack_size, || keeper.run(first)).map(drop)
    }

    fn run(mut self, first: Greeted) {
        let link = self.link.clone();
        let _ending = Ending(&link); // also if it panics: nobody waits for an answer in vain
        let mut next = Some(first);
        loop {
            let delay = match next.take().map_or_else(|| self.place.connect(), Ok) {
                Ok(greeted) => match self.serve(&greeted) {
                    Some(delay) => delay,
                    None => return,
                },
                Err(error) => self.failed(&error),
            };
            if !self.link.pause(delay) {
                return;
            }
        }
    }

    /// Receives until the connection ends. Returns when to try again. `None`: it is not wanted any more.
    fn serve(&mut self, Greeted { client, line }: &Greeted) -> Option<Duration> {
        let begun = Instant::now();
        if !self.link.begin(line) {
            return None;
        }
        let reason = loop {
            match client.read_message(READ_TIMEOUT) {
                Ok(Message::Binary(bytes)) => self.link.receive(line, &bytes),
                Ok(Message::Text(_)) => line.refuse(Malformed("a text")),
                Err(Error::Closed(reason)) => break reason,
                Err(_) => {} // a long silence
            }
        };
        self.link.end();
        Some(self.ended(begun.elapsed(), &reason))
    }

    fn ended(&mut self, lasted: Duration, reason: &CloseReason) -> Duration {
        log::debug!("{:?}: {}", self.link, Shown(reason));
        self.pace.lasted(lasted);
        let delay = self.pace.next(Advice::of_end(reason), chance());
        if lasted >= STEADY { Duration::ZERO } else { delay }
    }

    fn failed(&mut self, error: &HubError) -> Duration {
        log::debug!("{:?}: {}", self.link, Shown(error));
        let advice = match error {
            HubError::Connect(error) => Advice::of_failure(error, false),
            _ => Advice::Lasting,
        };
        self.pace.next(advice, chance())
    }
}

struct Ending<'a>(&'a Link);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
