//! Where the server is, and who asks.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use clap::Args;
use switchboard::{Client, ClientBuilder, Hub, Limits, header::AUTHORIZATION};

use super::failure::Failure;
#[cfg(feature = "__tls")]
use crate::command::client_tls::Tls;
use crate::command::{small_file, times::time};

/// So long a server may take for an answer, beside what it is to wait for: it may have a lot to do.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// A server that has stopped, or cannot be reached any more, is found out within twice this, as by the hub's own link.
const PING: Duration = Duration::from_secs(5);

/// Bytes of a token's file that are looked at: more is no token.
const MAX_TOKEN: u64 = 2048;

/// Above these options in the help, which have names of their own outside the command line.
pub(in crate::command) const PLACE: &str = "Where the server is";

#[derive(Debug, Args)]
#[command(next_help_heading = PLACE)]
pub(super) struct Place {
    /// The server's management listener (serve --manage): unix:PATH, http://127.0.0.1:PORT, or https://HOST:PORT
    #[arg(long, value_name = "ADDR")]
    manage: Option<String>,
    /// The file with the token that it wants, unless it is a Unix socket
    #[arg(long, value_name = "FILE")]
    manage_token_file: Option<PathBuf>,
    /// What was in that, if it can be read only once, as bash's `<(…)`
    #[arg(skip)]
    token: OnceLock<String>,
    /// Give up connecting after this time
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = time, allow_negative_numbers = true)]
    connect_timeout: Duration,
    #[cfg(feature = "__tls")]
    #[command(flatten)]
    tls: Tls,
}

impl Place {
    /// The server's hub.
    pub(super) fn hub(&self) -> Result<Hub, Failure> {
        let mut builder = Hub::builder().connect_timeout(self.connect_timeout).answer_timeout(ANSWER_TIME);
        match self.token_file() {
            Some(file) if file.is_file() => builder = builder.token_file(file),
            Some(file) => builder = builder.token(self.token(file)?),
            None => {}
        }
        #[cfg(feature = "__tls")]
        let builder = builder.tls(self.tls.trust().map_err(|e| Failure::usage(e.to_string()))?);
        Ok(builder.connect(&self.url()?)?)
    }

    /// A client of a WebSocket of the listener. Whether the URL will do, and the token may be sent there, the hub has to say before.
    pub(super) fn client(&self, path: &str) -> Result<ClientBuilder, Failure> {
        let url = self.url()?;
        let url = match url.split_once(':') {
            Some(("unix" | "ws+unix", socket)) => format!("unix:{}:{path}", socket.trim_end_matches(':')),
            Some(("https" | "wss", rest)) => format!("wss:{}{path}", rest.trim_end_matches('/')),
            Some((_, rest)) => format!("ws:{}{path}", rest.trim_end_matches('/')),
            None => url,
        };
        let mut limits = Limits::default();
        (limits.ping_interval, limits.ping_timeout) = (Some(PING), PING);
        let mut builder = Client::builder(&url).connect_timeout(self.connect_timeout).limits(limits);
        if let Some(file) = self.token_file() {
            builder = builder.header(AUTHORIZATION, format!("Bearer {}", self.token(file)?));
        }
        #[cfg(feature = "__tls")]
        let builder = builder.tls(self.tls.trust().map_err(|e| Failure::usage(e.to_string()))?);
        Ok(builder)
    }

    /// Where it is, as it was given.
    pub(super) fn name(&self) -> &str {
        self.manage.as_deref().unwrap_or_default()
    }

    /// With a scheme in small letters. Where `serve` listens, `127.0.0.1:9090`, is where `http://127.0.0.1:9090` leads.
    fn url(&self) -> Result<String, Failure> {
        let Some(given) = self.manage.as_deref().filter(|given| !given.is_empty()) else {
            return Err(Failure::usage(
                "which server? Say where its management listener is (serve --manage): by --manage, such as --manage \
                 unix:/run/box.sock, or by SWITCHBOARD_MANAGE in the environment",
            ));
        };
        Ok(match given.split_once(':') {
            _ if given.starts_with('[') => format!("http://{given}"),
            Some((_, port)) if port.parse::<u16>().is_ok() => format!("http://{given}"),
            Some((scheme, rest)) => format!("{}:{rest}", scheme.to_ascii_lowercase()),
            None => given.to_owned(),
        })
    }

    fn token(&self, file: &Path) -> Result<String, Failure> {
        if let Some(token) = self.token.get() {
            return Ok(token.clone());
        }
        let read = |file| small_file::read_text(&file, MAX_TOKEN, small_file::PATIENCE);
        let token = small_file::open(file)
            .and_then(read)
            .map_err(|e| Failure::usage(format!("the token in {}: {e}", file.display())))?;
        let token = token.trim().to_owned();
        if !file.is_file() {
            let _ = self.token.set(token.clone());
        }
        Ok(token)
    }

    fn token_file(&self) -> Option<&PathBuf> {
        self.manage_token_file.as_ref().filter(|file| !file.as_os_str().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(manage: Option<&str>) -> Result<String, Failure> {
        use clap::Parser;
        #[derive(Parser)]
        struct Alone {
            #[command(flatten)]
            place: Place,
        }
        let mut place = Alone::parse_from(["x"]).place;
        place.manage = manage.map(Into::into);
        place.url()
    }

    #[test]
    fn where_serve_listens_will_do_as_well() {
        for (given, url_of_it) in [
            ("unix:/run/box.sock", "unix:/run/box.sock"),
            ("127.0.0.1:9090", "http://127.0.0.1:9090"),
            ("[::1]:9090", "http://[::1]:9090"),
            ("localhost:9090", "http://localhost:9090"),
            ("HTTPS://box.example:9090", "https://box.example:9090"),
            ("/run/box.sock", "/run/box.sock"),
        ] {
            assert_eq!(url(Some(given)).unwrap(), url_of_it);
        }
        for none in [None, Some("")] {
            assert!(url(none).unwrap_err().text.unwrap().contains("SWITCHBOARD_MANAGE"));
        }
    }
}
