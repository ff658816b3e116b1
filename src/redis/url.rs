//! Which Redis a URL names.

use std::{net::IpAddr, path::PathBuf};

use percent_encoding::percent_decode_str;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// What may be said in a URL, taken apart.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) struct Target {
    pub(super) place: Place,
    pub(super) is_secure: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(Address),
    Unix(PathBuf),
    /// The master of this name, that one of these Sentinels knows.
    Sentinels(Vec<Address>, String),
}

/// A name or an IP address without brackets, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Target {
    /// # Errors
    /// What is wrong with the URL. The text shows nothing of it, since there may be a password in it.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if url.chars().any(|c| c.is_control() || c == ' ') {
            return Err("it has a space, a control character or a line break in it".into());
        }
        let (scheme, rest) =
            url.split_once(':').ok_or("it begins with no scheme: write redis://HOST or rediss://HOST")?;
        match scheme.to_ascii_lowercase().replace("valkeys", "rediss").replace("valkey", "redis").as_str() {
            "redis" => Self::tcp(rest, false),
            "rediss" => Self::tcp(rest, true),
            "unix" | "redis+unix" => Self::unix(rest),
            "redis+sentinel" => Self::sentinels(rest, false),
            "rediss+sentinel" => Self::sentinels(rest, true),
            _ => Err("it begins with none of redis://, rediss:// (with TLS), unix: (or redis+unix://), \
                      redis+sentinel:// and rediss+sentinel://"
                .into()),
        }
    }

    fn tcp(rest: &str, is_secure: bool) -> Result<Self, String> {
        let (credentials, hosts, path) = parts(rest)?;
        if hosts.contains(',') {
            return Err(
                "it names more than one host: only with redis+sentinel:// there may be several".into()
            );
        }
        let place = Place::Tcp(Address::parse(hosts, PORT)?);
        Self::new(place, is_secure, credentials, database(path)?)
    }

    fn sentinels(rest: &str, is_secure: bool) -> Result<Self, String> {
        let (credentials, hosts, path) = parts(rest)?;
        let addresses = hosts.split(',').map(|host| Address::parse(host, SENTINEL_PORT));
        let (name, number) = path.split_once('/').unwrap_or((path, ""));
        if name.is_empty() {
            return Err("the name of the master is missing: redis+sentinel://HOST,HOST/MASTER".into());
        }
        let place = Place::Sentinels(addresses.collect::<Result<_, _>>()?, decoded(name)?);
        Self::new(place, is_secure, credentials, database(number)?)
    }

    fn unix(rest: &str) -> Result<Self, String> {
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.starts_with('/') {
            return Err("the path of the socket is missing: redis+unix:///run/redis/redis-server.sock".into());
        }
        let place = Place::Unix(decoded(path)?.into());
        let mut target = Self { place, is_secure: false, user: None, password: None, database: 0 };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "db" => target.database = database(&value)?,
                "user" => target.user = Some(value.into_owned()),
                "pass" => target.password = Some(value.into_owned()),
                _ => {
                    return Err("behind the path there may be ?db=, user= and pass=, and nothing else".into());
                }
            }
        }
        Ok(target)
    }

    fn new(place: Place, is_secure: bool, credentials: Option<&str>, database: u32) -> Result<Self, String> {
        let (user, password) = match credentials.map(|text| text.split_once(':')) {
            None => (None, None),
            Some(Some((user, password))) => {
                (Some(decoded(user)?).filter(|user| !user.is_empty()), Some(decoded(password)?))
            }
            Some(None) => {
                return Err("a password has a colon before it, as in redis://:PASSWORD@HOST or redis://USER:PASSWORD@HOST"
                    .into());
            }
        };
        Ok(Self { place, is_secure, user, password, database })
    }
}

impl Address {
    fn parse(text: &str, usual_port: u16) -> Result<Self, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("there is a [ without a ] in it")?;
                (host, port.strip_prefix(':'))
            }
            None if text.matches(':').count() > 1 => {
                return Err("an IPv6 address stands in brackets: redis://[::1]:6379".into());
            }
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            None | Some("") => usual_port,
            Some(port) => port
                .parse()
                .ok()
                .filter(|number| *number > 0)
                .ok_or("its port is no number from 1 to 65535 (in a password, / is %2F, and # is %23)")?,
        };
        let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        match host.parse::<IpAddr>() {
            _ if host.is_empty() => Err("it has no host".into()),
            Ok(ip) if ip.is_unspecified() => {
                Err("it has the address of all addresses, which nobody can connect to".into())
            }
            Err(_) if !host.bytes().all(is_good) => Err("its host has characters that no name has".into()),
            _ => Ok(Self { host: host.into(), port }),
        }
    }

    /// As in a URL.
    pub(super) fn shown(&self) -> String {
        let Self { host, port } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// What stands before the last `@`, the hosts, and the path without its slash.
fn parts(rest: &str) -> Result<(Option<&str>, &str, &str), String> {
    let rest = rest.strip_prefix("//").ok_or("the scheme is followed by //")?;
    if rest.contains(['?', '#']) {
        return Err("it has a ? or a # in it: in a password they are %3F and %23".into());
    }
    let (credentials, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => (Some(credentials), rest),
        None => (None, rest),
    };
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    Ok((credentials, hosts, path))
}

fn database(text: &str) -> Result<u32, String> {
    match text {
        "" => Ok(0),
        _ => text.parse().map_err(|_| "behind the last / stands the number of a database, such as 0".into()),
    }
}

fn decoded(text: &str) -> Result<String, String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(Into::into)
        .map_err(|_| "what is encoded in it is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> Address {
        Address { host: host.into(), port }
    }

    fn plain(place: Place) -> Target {
        Target { place, is_secure: false, user: None, password: None, database: 0 }
    }

    #[test]
    fn what_a_url_says() {
        let parse = |url: &str| Target::parse(url).unwrap();
        let tcp = |host: &str, port| plain(Place::Tcp(address(host, port)));
        assert_eq!(parse("redis://box"), tcp("box", 6379));
        assert_eq!(parse("Redis://box:1/"), tcp("box", 1));
        assert_eq!(parse("valkey://[::1]:1/3"), Target { database: 3, ..tcp("::1", 1) });
        let secure = Target { is_secure: true, ..tcp("box", 6379) };
        assert_eq!(parse("rediss://box"), secure);
        let both =
            Target { user: Some("us@er".into()), password: Some("p:a/ss@".into()), database: 2, ..secure };
        assert_eq!(parse("valkeys://us%40er:p:a%2Fss@@box/2"), both);
        let password = Some("x".to_owned());
        assert_eq!(parse("redis://:x@box"), Target { password: password.clone(), ..tcp("box", 6379) });
        let unix = plain(Place::Unix("/run/a b.sock".into()));
        for url in ["unix:/run/a%20b.sock", "unix:///run/a%20b.sock", "redis+unix:///run/a%20b.sock"] {
            assert_eq!(parse(url), unix);
        }
        let with = Target { user: Some("u".into()), password, database: 7, ..unix };
        assert_eq!(parse("valkey+unix:///run/a%20b.sock?db=7&user=u&pass=x"), with);
    }

    #[test]
    fn sentinels() {
        let two = vec![address("a", 26379), address("::1", 5)];
        let expected = Target {
            is_secure: true,
            user: Some("u".into()),
            password: Some("p".into()),
            database: 1,
            ..plain(Place::Sentinels(two, "my master".into()))
        };
        assert_eq!(Target::parse("rediss+sentinel://u:p@a,[::1]:5/my%20master/1"), Ok(expected));
        let one = plain(Place::Sentinels(vec![address("a", 1)], "m".into()));
        assert_eq!(Target::parse("valkey+sentinel://a:1/m"), Ok(one));
    }

    #[test]
    fn mistakes_are_named_and_no_password_is_shown() {
        for (url, part) in [
            ("", "no scheme"),
            ("box", "no scheme"),
            ("localhost:6379", "none of"),
            ("http://box", "none of"),
            ("http://box", "unix: (or "),
            ("redis:box", "//"),
            ("redis://", "no host"),
            ("redis://:secret@", "no host"),
            ("redis://secret@box", "a colon"),
            ("redis://:secret?x@box", "%3F"),
            ("redis://:secret#@box", "%23"),
            ("redis://:secret @box", "space"),
            ("redis://:%ff@box", "UTF-8"),
            ("redis://box:0", "65535"),
            ("redis://box:secret", "65535"),
            ("redis://::1", "brackets"),
            ("redis://[::1", "without a ]"),
            ("redis://0.0.0.0:1", "nobody"),
            ("redis://bö", "no name"),
            ("redis://a,b", "sentinel"),
            ("redis://box/secret", "number of a database"),
            ("redis+sentinel://a,b", "/MASTER"),
            ("redis+sentinel://a,/m", "no host"),
            ("redis+unix://run/x", "path of the socket"),
            ("unix:/x?secret=1", "?db="),
        ] {
            let error = Target::parse(url).unwrap_err();
            assert!(error.contains(part) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
