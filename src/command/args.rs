//! The options of `serve`.

use std::path::PathBuf;

use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use log::LevelFilter;
use switchboard::{Compression, ProxyHeaders, Server};

use super::clustering::Clustering;
use super::help::AFTER;
use super::logging::{Options, To};
#[cfg(feature = "manage")]
use super::manage::Management;
#[cfg(feature = "__tls")]
use super::tls::Tls;

#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct Serve {
    /// Listen here: HOST:PORT, unix:PATH, or unix:PATH,mode=0660 for who may connect, whatever the umask is; repeatable
    /// [default: 127.0.0.1:8080, if nothing else is given]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    #[cfg(feature = "__tls")]
    #[command(flatten)]
    pub(super) tls: Tls,
    #[cfg(feature = "manage")]
    #[command(flatten)]
    pub(super) manage: Management,
    #[command(flatten)]
    pub(super) cluster: Clustering,
    /// Serve the files of this folder instead of the demo page
    #[arg(long, value_name = "DIR")]
    pub(super) www: Option<PathBuf>,
    /// Allow only pages of this origin to connect, such as https://example.com; same-host for pages of the same host, * for
    /// any; repeatable [default: same-host]
    #[arg(long, value_name = "ORIGIN")]
    pub(super) allow_origin: Vec<String>,
    /// Sign session IDs with the key in this file, so that they outlive a restart; made if it does not exist. Several lines: the
    /// first signs, all verify. All nodes of a --cluster need the same file, which has to exist [default: a new key at each start]
    #[arg(long, value_name = "FILE")]
    pub(super) session_key_file: Option<PathBuf>,
    /// Add this header line to all responses, such as a Content-Security-Policy; repeatable. A Cache-Control takes the place of
    /// the no-cache that files of --www have
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    pub(super) header: Vec<(String, String)>,
    /// A name by which this server is reached, such as box.example.com, *.example.com, or * for any; pages of other names are
    /// refused in private networks, unless no stranger can own them, such as localhost and box.local; repeatable
    #[arg(long, value_name = "NAME")]
    pub(super) host: Vec<String>,
    /// A proxy that is trusted to say who the client is (X-Forwarded-For, X-Forwarded-Proto), and for which Host: its address, a
    /// network such as 10.0.0.0/8, or unix for one that connects to a Unix socket; repeatable
    #[arg(long, value_name = "IP", value_parser = proxy)]
    pub(super) trusted_proxy: Vec<String>,
    /// In which header lines a --trusted-proxy says who the client is: X-Forwarded-For and -Proto, or Forwarded (RFC 7239)
    #[arg(long, value_name = "NAME", default_value = "x-forwarded", requires = "trusted_proxy")]
    pub(super) proxy_headers: Headers,
    /// A proxy whose connections all begin with the PROXY protocol, version 1 or 2, written as a --trusted-proxy; repeatable
    #[arg(long, value_name = "IP", value_parser = proxy)]
    pub(super) proxy_protocol: Vec<String>,
    /// Maximum number of connections; more are answered with 503 [default: 4096, or what the box has memory and descriptors for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_connections: Option<u32>,
    /// Maximum number of connections from one address, of IPv6 from one /64 network; more are answered with 429 [default: no
    /// limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_connections_per_address: Option<u32>,
    /// Maximum size of an incoming message in bytes, or with K or M; larger ones end the connection with 1009
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = size)]
    pub(super) max_message_size: usize,
    /// Bytes that all connections together may hold in buffers, or with K or M; beyond it those that hold most end with 1013
    /// [default: a quarter of the memory]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(super) max_buffered_bytes: Option<usize>,
    /// Compress messages, for clients that offer it: each on its own (pooled), or with reference to earlier ones (dedicated)
    #[arg(long, value_name = "MODE", default_value = "off")]
    pub(super) compress: Compress,
    /// Threads that call the handlers of shared connections, 1024 at most; 0: the gateway calls them
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(..=1024))]
    pub(super) workers: u16,
    /// Gateway threads, which drive the shared connections, 64 at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) gateways: u16,
    /// Ping a client after this many seconds of silence; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub(super) ping_interval: u64,
    /// Cut a client that has sent nothing for this many seconds after a ping
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) ping_timeout: u64,
    /// Stack size of each thread that runs handlers in bytes, or with K or M, from 64K to 256M
    #[arg(long, value_name = "SIZE", default_value = "256K", value_parser = stack_size)]
    pub(super) stack_size: usize,
    /// How much to log
    #[arg(long, value_name = "LEVEL", default_value = "info", ignore_case = true, value_parser = level())]
    log_level: LevelFilter,
    /// Where the log goes: stderr, syslog (of this machine, or syslog:SOCKET for another socket), or a file, which is appended to,
    /// and opened again at SIGHUP [default: stderr]
    #[arg(long, value_name = "WHERE", value_parser = To::parse)]
    log_to: Option<To>,
    /// Append the log to this file: the same as --log-to FILE, also for a file that is called stderr
    #[arg(long, value_name = "FILE", conflicts_with = "log_to")]
    log_file: Option<PathBuf>,
    /// Begin a log file anew when it is as large as this, 16K at least; the one before becomes FILE.1. So all of them take --log-keep
    /// times this, and once more [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = log_size)]
    log_max_size: Option<u64>,
    /// How many log files that were full are kept: FILE.1, FILE.2 and so on
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        requires = "log_max_size",
        value_parser = clap::value_parser!(u32).range(..=100)
    )]
    log_keep: u32,
}

/// The values of `--compress`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Compress {
    Off,
    Pooled,
    Dedicated,
}

impl From<Compress> for Compression {
    fn from(compress: Compress) -> Self {
        match compress {
            Compress::Off => Self::Off,
            Compress::Pooled => Self::Pooled,
            Compress::Dedicated => Self::Dedicated { window_bits: 15, level: 6 },
        }
    }
}

/// The values of `--proxy-headers`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Headers {
    XForwarded,
    Forwarded,
}

impl From<Headers> for ProxyHeaders {
    fn from(headers: Headers) -> Self {
        match headers {
            Headers::XForwarded => Self::XForwarded,
            Headers::Forwarded => Self::Forwarded,
        }
    }
}

impl Serve {
    pub(super) fn listen(&self) -> Vec<&str> {
        if self.listen.is_empty() && !self.has_tls() {
            return vec!["127.0.0.1:8080"];
        }
        self.listen_beside()
    }

    /// The same where something else is given.
    pub(super) fn listen_beside(&self) -> Vec<&str> {
        self.listen.iter().map(String::as_str).collect()
    }

    /// What there is to say of the log.
    pub(super) fn log(&self) -> Options {
        let file = self.log_file.clone().map(To::File);
        Options {
            level: self.log_level,
            to: file.or(self.log_to.clone()).unwrap_or(To::Stderr),
            max_size: self.log_max_size,
            kept: self.log_keep,
        }
    }

    #[cfg(feature = "__tls")]
    fn has_tls(&self) -> bool {
        !self.tls.tls_listen.is_empty()
    }

    #[cfg(not(feature = "__tls"))]
    fn has_tls(&self) -> bool {
        false
    }
}

/// The server says which headers it takes.
fn header(line: &str) -> Result<(String, String), String> {
    let (name, value) = name_and_value(line)?;
    let checked = Server::builder().header(name.as_str(), value.as_str()).check();
    checked.map(|_| (name, value)).map_err(|e| e.to_string())
}

/// Splits a header line.
pub(super) fn name_and_value(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or("must be NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// So that a wrong one is answered with those that there are.
fn level() -> impl TypedValueParser<Value = LevelFilter> {
    let names = ["off", "error", "warn", "info", "debug", "trace"];
    PossibleValuesParser::new(names).try_map(|name| name.parse::<LevelFilter>())
}

/// The server says what a proxy is.
fn proxy(text: &str) -> Result<String, String> {
    Server::builder().trusted_proxies([text]).check().map(|_| text.to_owned()).map_err(|e| e.to_string())
}

fn stack_size(text: &str) -> Result<usize, String> {
    match size(text)? {
        fits @ 0x10000..=0x1000_0000 => Ok(fits),
        _ => Err("must be from 64K to 256M".into()),
    }
}

fn log_size(text: &str) -> Result<u64, String> {
    let size = size(text)? as u64;
    if size >= 16 << 10 { Ok(size) } else { Err("must be 16K or more".into()) }
}

/// A number of bytes.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.trim_end_matches(['k', 'K', 'm', 'M']) {
        digits if digits.len() == text.len() => (digits, 1),
        digits if text[digits.len()..].eq_ignore_ascii_case("k") => (digits, 1 << 10),
        digits if text[digits.len()..].eq_ignore_ascii_case("m") => (digits, 1 << 20),
        _ => return Err("must be a number of bytes, or one with K or M".into()),
    };
    let number: usize = digits.parse().map_err(|_| "must be a number of bytes, or one with K or M")?;
    number.checked_mul(unit).filter(|&size| size > 0).ok_or_else(|| "out of range".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        serve: Serve,
    }

    fn parse(args: &[&str]) -> Result<Serve, clap::Error> {
        Alone::try_parse_from([&["switchboard"], args].concat()).map(|alone| alone.serve)
    }

    #[test]
    fn without_an_address_it_is_port_8080_of_localhost() {
        assert_eq!(parse(&[]).unwrap().listen(), ["127.0.0.1:8080"]);
        assert_eq!(parse(&["--listen", "a:1", "--listen", "b:2"]).unwrap().listen(), ["a:1", "b:2"]);
    }

    #[cfg(feature = "__tls")]
    #[test]
    fn with_tls_there_is_no_default() {
        let tls = parse(&["--tls-listen", "a:1", "--cert", "c", "--key", "k"]).unwrap();
        assert!(tls.listen().is_empty());
    }

    #[cfg(feature = "__tls")]
    #[test]
    fn a_port_that_redirects_is_of_the_host_that_has_tls() {
        let address = |tls: &str, redirect: &str| {
            let tls = ["--tls-listen", "unix:/s", "--tls-listen", tls, "--cert", "c", "--key", "k"];
            parse(&[&tls[..], &["--redirect-port", redirect]].concat()).unwrap().tls.redirect_addresses()
        };
        assert_eq!(address("0.0.0.0:443", "80"), ["0.0.0.0:80"]);
        assert_eq!(address("[::1]:443", "80"), ["[::1]:80"]);
        assert_eq!(address("box.example:443", "[::]:8080"), ["[::]:8080"]);
        let alone = parse(&["--redirect-port", "80", "--https-port", "443"]).unwrap();
        assert_eq!(alone.tls.redirect_addresses(), ["0.0.0.0:80"]);
    }

    #[cfg(all(feature = "__tls", feature = "manage"))]
    #[test]
    fn it_can_be_managed_with_tls_alone_and_in_several_places() {
        let tls = ["--cert", "c", "--key", "k", "--manage-token-file", "t"];
        let alone = parse(&[&["--manage-tls", "a:1"], &tls[..]].concat()).unwrap();
        assert_eq!(alone.listen(), ["127.0.0.1:8080"], "there it is not served to clients");
        let many = ["--manage", "unix:/s", "--manage", "a:2", "--manage-tls", "a:1", "--tls-listen", "a:3"];
        assert!(parse(&[&many, &tls[..]].concat()).unwrap().listen().is_empty());
    }

    #[test]
    fn wrong_options_are_refused() {
        for bad in [
            &["--cert", "c"][..],
            &["--key", "k"],
            &["--cert", "c", "--key", "k"],
            &["--identity", "i"],
            &["--tls-listen", "a:1"],
            &["--tls-listen", "a:1", "--identity", "i"],
            &["--tls-listen", "a:1", "--cert", "c", "--key", "k", "--identity", "i", "--password-file", "p"],
            &["--tls-listen", "a:1", "--cert", "c", "--key", "k", "--tls-min-version", "1.1"],
            &["--tls-listen", "a:1", "--cert", "c", "--key", "k", "--tls-backend", "gnutls"],
            &["--client-ca", "c"],
            &["--max-connections", "0"],
            &["--max-message-size", "1G"],
            &["--max-message-size", "0"],
            &["--log-level", "loud"],
            &["--stack-size", "1K"],
            &["--gateways", "0"],
            &["--gateways", "65"],
            &["--workers", "20000"],
            &["--ping-timeout", "0"],
            &["--max-connections-per-address", "0"],
            &["--compress", "gzip"],
            &["--header", "X-Y"],
            &["--header", "X Y: z"],
            &["--header", "X-Y: a\nb"],
            &["--header", "Content-Length: 5"],
            &["--trusted-proxy", "example.com"],
            &["--trusted-proxy", "10.0.0.1/8"],
            &["--proxy-protocol", "10.0.0.0/33"],
            &["--proxy-headers", "forwarded"],
            &["--proxy-headers", "via", "--trusted-proxy", "unix"],
            &["--redirect-port", "0"],
            &["--redirect-port", "http"],
            &["--redirect-port", "+80"],
            &["--https-port", "443"],
            &["--log-to", ""],
            &["--log-to", "syslog:"],
            &["--log-to", "a", "--log-file", "b"],
            &["--log-max-size", "15K"],
            &["--log-keep", "2"],
            &["--log-keep", "101", "--log-max-size", "1M"],
            &["--nonsense"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let told = parse(&["--log-level", "loud"]).unwrap_err().to_string();
        assert!(told.contains("off, error, warn, info, debug, trace"), "{told}");
        assert_eq!(parse(&["--log-level", "DEBUG"]).unwrap().log_level, LevelFilter::Debug);
        let to = |args: &[&str]| parse(args).unwrap().log().to;
        assert_eq!(to(&[]), To::Stderr);
        assert_eq!(
            (to(&["--log-to", "stderr"]), to(&["--log-file", "stderr"])),
            (To::Stderr, To::File("stderr".into()))
        );
        assert_eq!(to(&["--log-to", "syslog:/run/log"]), To::Syslog("/run/log".into()));
        assert_eq!(to(&["--log-to", "./syslog"]), To::File("./syslog".into()));
        assert_eq!(parse(&["--max-message-size", "16M"]).unwrap().max_message_size, 16 << 20);
        let headers = parse(&["--header", "X-Y: z: a", "--header", "x-e:"]).unwrap().header;
        assert_eq!(headers, [("X-Y".into(), "z: a".into()), ("x-e".into(), String::new())]);
    }
}
