//! A few connections for many threads, that fails at once where Redis is known to be down.

use std::{
    fmt,
    sync::{Condvar, Mutex},
    time::{Duration, Instant},
};

use ::redis::{Connection, RedisResult};

use super::{
    Redis,
    connect::Timeouts,
    failure::{Failure, FailureKind},
};
use crate::{
    deadline::Deadline,
    sync::{LockExt, wait},
};

/// After a failure nobody tries for so long; after each further one for twice as long, up to the second.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(3);

/// Connections are made when they are needed, and kept. While Redis is down, one thread tries now and then, and all others get
/// an error at once.
pub(crate) struct Pool {
    redis: Redis,
    timeouts: Timeouts,
    max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    /// Of all connections, in use or not.
    count: usize,
    down: Option<Down>,
    /// How often it was down. Connections from before are not kept.
    epoch: usize,
}

struct Down {
    why: Failure,
    /// When it is tried again.
    again: Instant,
    delay: Duration,
    is_being_tried: bool,
}

impl Down {
    fn told(&self, now: Instant) -> Failure {
        let when = match self.again.checked_duration_since(now) {
            Some(left) if !self.is_being_tried => format!("in {:.1} s", left.as_secs_f32()),
            _ => "right now".into(),
        };
        Failure::new(self.why.kind(), format!("{} (it is tried again {when})", self.why))
    }
}

/// The right to a connection, which is not there yet if a new one is to be made. Dropping it gives the right back, without the
/// connection.
struct Held<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
    epoch: usize,
    /// All others wait for what comes of this.
    is_trial: bool,
}

impl Pool {
    /// Of `max` connections; at least one.
    pub(crate) fn new(redis: Redis, timeouts: Timeouts, max: usize) -> Self {
        Self { redis, timeouts, max: max.max(1), state: Mutex::default(), changed: Condvar::new() }
    }

    /// Does something with a connection. It takes the time for an answer at most, if one has to be waited for or made that much
    /// more. If one that was idle turns out to be broken it is done again
    /// with a new one: so twice must come to the same as once.
    ///
    /// # Errors
    /// If that failed, or nobody could be asked.
    pub(crate) fn with<T>(
        &self,
        work: impl Fn(&mut Connection, Deadline) -> RedisResult<T>,
    ) -> Result<T, Failure> {
        let deadline = Deadline::after(self.timeouts.answer);
        let mut held = self.take(deadline)?;
        let was_idle = held.connection.is_some();
        let mut result = held.run(&work);
        if was_idle && result.as_ref().is_err_and(|failed| failed.is_broken) {
            // Redis has been started anew, or ends those that say nothing for a while. The others are no better.
            self.state.locked().forget_idle();
            held.connection = None;
            result = held.run(&work);
        }
        match result {
            Ok(done) => {
                held.give_back();
                Ok(done)
            }
            Err(Failed { failure, .. }) => {
                if failure.needs_another_connection() {
                    self.note_down(&failure, &held);
                } else {
                    held.give_back();
                }
                Err(failure)
            }
        }
    }

    fn take(&self, deadline: Deadline) -> Result<Held<'_>, Failure> {
        let mut state = self.state.locked();
        loop {
            let now = Instant::now();
            let epoch = state.epoch;
            let held = |connection, is_trial| Held { pool: self, connection, epoch, is_trial };
            if let Some(down) = &mut state.down {
                if down.is_being_tried || now < down.again {
                    return Err(down.told(now));
                }
                down.is_being_tried = true;
                state.count += 1; // perhaps one more than there may be: those from before are soon gone
                return Ok(held(None, true));
            }
            if let Some(connection) = state.idle.pop() {
                return Ok(held(Some(connection), false));
            }
            if state.count < self.max {
                state.count += 1;
                return Ok(held(None, false));
            }
            let Some(left) = deadline.remaining() else {
                let text = format!("{}: all {} connections were in use for too long", self.redis, self.max);
                return Err(Failure::new(FailureKind::Busy, text));
            };
            state = wait(&self.changed, state, left);
        }
    }

    fn note_down(&self, why: &Failure, held: &Held<'_>) {
        let mut state = self.state.locked();
        let delay = match &state.down {
            None if state.epoch == held.epoch => FIRST_DELAY,
            Some(down) if held.is_trial => (down.delay * 2).min(LONGEST_DELAY),
            // It is known already, by another one that was in use at the same time, or is over.
            _ => return,
        };
        let again = Instant::now() + delay;
        state.down = Some(Down { why: why.clone(), again, delay, is_being_tried: false });
        state.epoch += 1;
        state.forget_idle();
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    fn forget_idle(&mut self) {
        self.count -= self.idle.len();
        self.idle.clear();
    }
}

/// What did not work, and whether that is because the connection was broken.
struct Failed {
    failure: Failure,
    is_broken: bool,
}

impl Held<'_> {
    fn run<T>(&mut self, work: impl Fn(&mut Connection, Deadline) -> RedisResult<T>) -> Result<T, Failed> {
        let Pool { redis, timeouts, .. } = self.pool;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                none.insert(redis.connect(*timeouts).map_err(|failure| Failed { failure, is_broken: false })?)
            }
        };
        let deadline = Deadline::after(timeouts.answer);
        let done =
            connection.set_read_timeout(Some(timeouts.answer)).and_then(|()| work(connection, deadline));
        done.map_err(|e| Failed { is_broken: e.is_connection_dropped(), failure: redis.failure(&e) })
    }

    /// With the connection, which is in order.
    fn give_back(mut self) {
        let mut state = self.pool.state.locked();
        let was_down = if self.is_trial { state.down.take() } else { None };
        if state.epoch == self.epoch && state.count <= self.pool.max {
            state.idle.extend(self.connection.take());
            state.count += 1; // dropping this takes it off
        }
        drop(state);
        if was_down.is_some() {
            log::info!("{}: it is there again", self.pool.redis);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.locked();
        state.count -= 1;
        // Else what was tried has come to an end already.
        if let Some(down) = state.down.as_mut().filter(|down| self.is_trial && down.is_being_tried) {
            down.is_being_tried = false;
        }
        drop(state);
        self.pool.changed.notify_one();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({})", self.redis)
    }
}
