//! How long to wait before the next attempt. Pure: chance is an argument.

use std::time::Duration;

use http::StatusCode;

use crate::{
    client::error::ClientError,
    error::{CloseReason, ClosedBy},
    message::CloseCode,
};

/// A server that restarts, or has too much to do, is left alone for so long: some time between these, so that not all of its clients
/// come at once (RFC 6455, section 7.2.3, and the registry of close codes for 1012).
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

const DAY: Duration = Duration::from_secs(86_400);

/// What is chosen.
#[derive(Clone, Debug)]
pub(crate) struct Delays {
    /// The first one is no longer than this, and each further one no longer than twice the one before.
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
    /// A connection that lasted for so long was up.
    pub(crate) steady: Duration,
    /// A server that asks for more than this gets this.
    pub(crate) longest_asked: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            steady: Duration::from_secs(10),
            longest_asked: Duration::from_secs(15 * 60),
        }
    }
}

impl Delays {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.first < Duration::from_millis(1) || self.first > self.longest {
            return Err(format!(
                "the first delay is {:?}: it has to be from 1 ms to the longest one, {:?}",
                self.first, self.longest
            ));
        }
        for (name, time) in [("the longest delay", self.longest), ("max_retry_after", self.longest_asked)] {
            if time > DAY {
                return Err(format!("{name} is {time:?}: it has to be a day at most"));
            }
        }
        Ok(())
    }
}

/// What the end of a connection, or of an attempt, says of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    Usual,
    /// The server has asked for so much time.
    After(Duration),
    /// It restarts, or has too much to do.
    Restarting,
    /// It will not mend by itself.
    Lasting,
}

impl Advice {
    pub(crate) fn of_end(reason: &CloseReason) -> Self {
        match (reason.by(), reason.code()) {
            (ClosedBy::Server, CloseCode::RESTART | CloseCode::TRY_AGAIN) => Self::Restarting,
            _ => Self::Usual,
        }
    }

    /// Of a failed attempt. `is_prepared`: the program is asked before each, so that it can do something about credentials.
    pub(crate) fn of_failure(error: &ClientError, is_prepared: bool) -> Self {
        const CREDENTIALS: [StatusCode; 3] =
            [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::PROXY_AUTHENTICATION_REQUIRED];
        let response = error.response();
        if let Some(time) = response.and_then(|response| response.retry_after()) {
            return Self::After(time);
        }
        let is_new_next_time =
            is_prepared && response.is_some_and(|response| CREDENTIALS.contains(&response.status()));
        if error.is_lasting() && !is_new_next_time { Self::Lasting } else { Self::Usual }
    }
}

/// How long the delays have become.
#[derive(Debug)]
pub(crate) struct Pace {
    delays: Delays,
    /// Attempts since the last connection that was up for long enough.
    attempts: u32,
}

impl Pace {
    pub(crate) fn new(delays: Delays) -> Self {
        Self { delays, attempts: 0 }
    }

    /// A connection has lasted for so long.
    pub(crate) fn lasted(&mut self, time: Duration) {
        if time >= self.delays.steady {
            self.attempts = 0;
        }
    }

    /// The next delay: full jitter, which means any time from nothing to the one that grows. `chance` is from 0 to 1.
    pub(crate) fn next(&mut self, advice: Advice, chance: f64) -> Duration {
        let Delays { first, longest, longest_asked, .. } = self.delays;
        let grown = first.saturating_mul(1 << self.attempts.min(30)).min(longest);
        self.attempts = self.attempts.saturating_add(1);
        let between = |from: Duration, to: Duration| from + to.saturating_sub(from).mul_f64(chance);
        match advice {
            Advice::Usual => between(Duration::ZERO, grown),
            Advice::After(time) => {
                let time = time.min(longest_asked);
                between(time, time + grown)
            }
            Advice::Restarting => {
                let to = PAUSE.1.max(grown).min(longest);
                between(PAUSE.0.min(to / 2), to)
            }
            Advice::Lasting => between(longest / 2, longest),
        }
    }
}

/// From 0 to 1, so that boxes that were switched on together do not stay together.
pub(crate) fn chance() -> f64 {
    const STEPS: f64 = (1_u64 << 32) as f64;
    // Without randomness the longest delay is the one that does no harm.
    getrandom::u32().map_or(1.0, |random| f64::from(random) / STEPS)
}

#[cfg(test)]
mod tests {
    use std::io;

    use http::{HeaderMap, header};

    use super::*;
    use crate::{
        client::{error::ConnectStep, response::HandshakeResponse},
        error::TlsError,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn pace() -> Pace {
        Pace::new(Delays::default())
    }

    #[test]
    fn delays_grow_from_the_first_to_the_longest_and_are_any_part_of_it() {
        let mut whole = pace();
        let seconds: Vec<_> = (0..40).map(|_| whole.next(Advice::Usual, 1.0).as_secs()).collect();
        assert_eq!(seconds[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(seconds[8..].iter().all(|seconds| *seconds == 60));
        assert_eq!(whole.next(Advice::Usual, 0.0), Duration::ZERO);
        assert_eq!(whole.next(Advice::Usual, 0.5), 30 * SECOND);
    }

    #[test]
    fn only_a_connection_that_was_up_for_long_enough_makes_them_short_again() {
        let mut pace = pace();
        for _ in 0..3 {
            pace.next(Advice::Usual, 1.0);
        }
        pace.lasted(Duration::from_millis(9_999));
        assert_eq!(pace.next(Advice::Usual, 1.0), 8 * SECOND);
        pace.lasted(10 * SECOND);
        assert_eq!(pace.next(Advice::Usual, 1.0), SECOND);
    }

    #[test]
    fn what_a_server_asks_for_is_given_up_to_a_bound_and_spread() {
        let next = |advice, chance| pace().next(advice, chance);
        assert_eq!(next(Advice::After(120 * SECOND), 0.0), 120 * SECOND);
        assert_eq!(next(Advice::After(120 * SECOND), 1.0), 121 * SECOND);
        assert_eq!(next(Advice::After(Duration::MAX), 0.0), 900 * SECOND);
        assert_eq!(next(Advice::Restarting, 0.0), 5 * SECOND);
        assert_eq!(next(Advice::Restarting, 1.0), 30 * SECOND);
        assert_eq!(next(Advice::Lasting, 0.0), 30 * SECOND);
        assert_eq!(next(Advice::Lasting, 1.0), 60 * SECOND);
        let short = Delays { first: SECOND / 100, longest: SECOND, ..Delays::default() };
        assert!(Pace::new(short).next(Advice::Restarting, 1.0) <= SECOND, "the longest is the longest");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = Delays::default();
        good.check().unwrap();
        for (bad, part) in [
            (Delays { first: Duration::ZERO, ..good.clone() }, "first"),
            (Delays { first: 61 * SECOND, ..good.clone() }, "first"),
            (Delays { longest: Duration::MAX, ..good.clone() }, "longest"),
            (Delays { longest_asked: 2 * DAY, ..good.clone() }, "max_retry_after"),
        ] {
            assert!(bad.check().unwrap_err().contains(part), "{bad:?}");
        }
    }

    #[test]
    fn what_will_not_mend_is_tried_seldom_and_what_may_often() {
        let refused = |status: u16, retry_after: &str| {
            let mut headers = HeaderMap::new();
            if !retry_after.is_empty() {
                headers.insert(header::RETRY_AFTER, retry_after.parse().unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            ClientError::Refused(Box::new(HandshakeResponse { status, headers, body: Vec::new() }))
        };
        let of = |error: &ClientError| Advice::of_failure(error, false);
        for status in [200, 301, 400, 401, 403, 404, 426] {
            assert_eq!(of(&refused(status, "")), Advice::Lasting, "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(of(&refused(status, "")), Advice::Usual, "{status}");
        }
        for status in [401, 403, 407] {
            assert_eq!(Advice::of_failure(&refused(status, ""), true), Advice::Usual, "{status}");
        }
        assert_eq!(Advice::of_failure(&refused(404, ""), true), Advice::Lasting);
        assert_eq!(of(&refused(503, "7")), Advice::After(7 * SECOND));
        assert_eq!(of(&refused(429, "7")), Advice::After(7 * SECOND));
        assert_eq!(of(&ClientError::config("no URL")), Advice::Lasting);
        assert_eq!(of(&ClientError::Tls(TlsError::new("not trusted"))), Advice::Lasting);
        assert_eq!(of(&ClientError::Timeout(ConnectStep::Resolve)), Advice::Usual);
        assert_eq!(of(&ClientError::connect("box", io::ErrorKind::ConnectionRefused.into())), Advice::Usual);
    }

    #[test]
    fn only_the_server_itself_says_that_it_restarts() {
        let end = |code, by| Advice::of_end(&CloseReason::new(CloseCode(code), "", by));
        for code in [1012, 1013] {
            assert_eq!(end(code, ClosedBy::Server), Advice::Restarting);
            assert_eq!(end(code, ClosedBy::Client), Advice::Usual);
        }
        for code in [1000, 1001, 1006, 1011, 4000] {
            assert_eq!(end(code, ClosedBy::Server), Advice::Usual);
        }
    }
}
