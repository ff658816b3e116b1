//! The options of `connect`.

use std::time::Duration;

use clap::Args;
use switchboard::{Client, ClientBuilder, Limits};

#[cfg(feature = "__tls")]
use crate::command::client_tls::Tls;
use crate::command::{
    args::{Compress, name_and_value, size},
    times::{time, wait},
};

/// So long the server may take for its part of the closing handshake: all is said then.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// So long the answer of `--one` and the text of `--expect` are waited for, if nothing else is said.
const ANSWER_TIME: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Exit codes:
  0    the connection was closed in order, by either side; with --one the answer came, with --expect the text
  1    there is no connection, or standard input or output failed
  2    wrong usage
  3    the server, or the proxy, has answered with something else than a WebSocket
  4    the server ended the connection with a code that is no normal end, or the connection broke; with --one and
       --expect also a normal end, before what was waited for
  5    --timeout or --connect-timeout has passed
  130  interrupted while it was connecting, or before the answer of --one or the text of --expect; or twice

Messages go to standard output and nothing else does. On a terminal each is one line above what is being typed,
control characters are escaped, and binary messages are shown as hexadecimal bytes. In a pipe or a file a text is passed on as it is, and
a newline follows.

Examples:
  switchboard connect ws://127.0.0.1:8080/echo                        a line typed is a message sent, until Ctrl-D
  switchboard connect 'unix:/run/box.sock:/chat?room=r&name=n'        by a Unix socket
  echo '{\"get\": \"state\"}' | switchboard connect --one wss://box/api   one question, one answer
  switchboard connect --send ping --expect pong ws://box/health       a health check: exit code 0 or not
  switchboard connect --wait forever ws://box/news < /dev/null        whatever comes, a line each, until it ends
  switchboard connect --binary --one ws://box/scale < in.png > out.png";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::command) struct Connect {
    /// ws://HOST:PORT/PATH, wss://HOST/PATH, or unix:SOCKET:/PATH for a Unix socket; with USER:PASSWORD@ before the host, HTTP's
    /// basic authentication
    url: String,

    /// Send this instead of what standard input has; repeatable. With --binary it is hexadecimal
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) send: Vec<String>,
    /// Send one message, print the first that comes, and end. If there is nothing to send, it only waits for one
    #[arg(long, short = '1', conflicts_with = "expect")]
    pub(super) one: bool,
    /// Print messages until one has this text in it, and end: a health check
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) expect: Option<String>,
    /// Send binary messages: all of standard input as one, or, on a terminal, each line of hexadecimal bytes. What comes is
    /// written to a pipe or a file as it is, with nothing between messages
    #[arg(long, short)]
    pub(super) binary: bool,
    /// Messages end with a NUL character instead of a newline, in and out, so that they may have several lines
    #[arg(long, short = '0', conflicts_with = "binary")]
    null: bool,

    /// End with exit code 5 if all of it, connecting included, takes longer than this [default: 10 with --one and --expect,
    /// else no limit]
    #[arg(long, value_name = "SECONDS", value_parser = time, allow_negative_numbers = true)]
    timeout: Option<Duration>,
    /// Give up connecting after this time
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = time, allow_negative_numbers = true)]
    connect_timeout: Duration,
    /// When standard input has ended, close after so long a time without a message, on a terminal after that time in any case; 0:
    /// at once; forever: until the server does
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = wait, allow_negative_numbers = true, conflicts_with_all = ["one", "expect"])]
    pub(super) wait: Duration,

    /// Add this header line to the request; repeatable
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = name_and_value)]
    header: Vec<(String, String)>,
    /// Offer this subprotocol; repeatable, the first is preferred
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// Offer compression: of each message on its own (pooled), or with reference to earlier ones (dedicated)
    #[arg(long, value_name = "MODE", default_value = "off", visible_alias = "compression")]
    compress: Compress,
    /// Connect through this HTTP proxy, by CONNECT: http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT. The
    /// environment (http_proxy) is not asked
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    #[cfg(feature = "__tls")]
    #[command(flatten)]
    pub(super) tls: Tls,
    /// Maximum size of a message, in or out, in bytes, or with K or M; a larger one ends the connection with 1009
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = size)]
    pub(super) max_message_size: usize,
}

impl Connect {
    /// A client as the options have it, but for TLS.
    pub(super) fn client(&self) -> ClientBuilder {
        let mut limits = Limits::default();
        limits.max_message_size = self.max_message_size;
        limits.max_frame_size = self.max_message_size;
        limits.close_timeout = CLOSE_TIME;
        // Whoever reads our output may be slow, and hold the server back, which then takes nothing from us: no reason to end. One
        // that is gone is found by pings.
        limits.write_timeout = Duration::from_secs(86_400);
        let mut builder = Client::builder(&self.url)
            .limits(limits)
            .compression(self.compress.into())
            .connect_timeout(self.time().map_or(self.connect_timeout, |all| all.min(self.connect_timeout)));
        for (name, value) in &self.header {
            builder = builder.header(name.as_str(), value.as_str());
        }
        for name in &self.subprotocol {
            builder = builder.subprotocol(name);
        }
        match &self.proxy {
            Some(url) => builder.proxy(url),
            None => builder,
        }
    }

    /// What ends a line.
    pub(super) fn end(&self) -> u8 {
        if self.null { 0 } else { b'\n' }
    }

    /// What all of it may take.
    pub(super) fn time(&self) -> Option<Duration> {
        let is_answered = self.one || self.expect.is_some();
        self.timeout.or(is_answered.then_some(ANSWER_TIME))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        connect: Connect,
    }

    fn parse(args: &[&str]) -> Result<Connect, clap::Error> {
        Alone::try_parse_from([&["connect"], args].concat()).map(|alone| alone.connect)
    }

    #[test]
    fn times() {
        let time = |args: &[&str]| parse(&[&["ws://box"], args].concat()).unwrap().time();
        assert_eq!(time(&[]), None);
        assert_eq!(time(&["--one"]), Some(ANSWER_TIME));
        assert_eq!(time(&["--expect", "x"]), Some(ANSWER_TIME));
        assert_eq!(time(&["--expect", "-x", "--timeout", "0.5"]), Some(Duration::from_millis(500)));
        let wait = |text| parse(&["ws://box", "--wait", text]).unwrap().wait;
        assert_eq!(
            (wait("forever"), wait("0"), wait("2")),
            (Duration::MAX, Duration::ZERO, Duration::from_secs(2))
        );
    }

    #[test]
    fn wrong_options_are_refused() {
        for bad in [
            &[][..],
            &["ws://a", "ws://b"],
            &["ws://a", "--one", "--expect", "x"],
            &["ws://a", "--one", "--wait", "1"],
            &["ws://a", "--binary", "--null"],
            &["ws://a", "--timeout", "0"],
            &["ws://a", "--timeout", "-1"],
            &["ws://a", "--timeout", "nan"],
            &["ws://a", "--timeout", "soon"],
            &["ws://a", "--connect-timeout", "inf"],
            &["ws://a", "--wait", "-1"],
            &["ws://a", "--header", "X-Y"],
            &["ws://a", "--compress", "gzip"],
            &["ws://a", "--ca", "a", "--insecure"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
