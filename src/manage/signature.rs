//! Requests that are signed as clients of AWS do it (Signature Version 4), with a token as the secret key: it is never sent. Neither
//! I/O nor the clock here.
//!
//! What is signed is the method, the path, the query, the host, the time and the body. A request that somebody has overheard could be
//! sent again for a quarter of an hour; but only TLS lets requests out of the machine.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use sha2::{Digest, Sha256};

use crate::{error::Result, http::Request};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// How far the client's clock may be from ours.
const TOLERANCE: Duration = Duration::from_secs(15 * 60);

/// When this version was written: 2026-11-01. A clock that is before that was not set yet, and judges no other.
const WRITTEN: Duration = Duration::from_secs(1_793_491_200);

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// What is encoded in a query: all but the unreserved characters (RFC 3986, section 2.3).
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// The key that a token is, ready for use: the token itself is not kept.
pub(super) struct Key(Hmac<Sha256>);

/// What a request says of its signature, which is not checked yet.
pub(super) struct Signed<'a> {
    request: &'a Request,
    /// Day, region, service and the end of what it is for.
    scope: [&'a str; 4],
    date: &'a str,
    /// The names of the header lines.
    headers: &'a str,
    signature: [u8; 32],
    /// The digest of the body, if the head has it.
    content: Option<&'a str>,
}

/// Whether this is the `Authorization` of a signed request.
pub(super) fn is_signed(authorization: &[u8]) -> bool {
    authorization.split(|&b| b == b' ').next() == Some(ALGORITHM.as_bytes())
}

/// As it is signed.
pub(super) fn digest(body: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(body))
}

impl Key {
    pub(super) fn new(token: &[u8]) -> Self {
        Self(hmac(&[b"AWS4", token].concat()))
    }
}

impl<'a> Signed<'a> {
    /// # Errors
    /// What is missing or malformed.
    pub(super) fn parse(authorization: &'a [u8], request: &'a Request) -> Result<Self, &'static str> {
        let fields = str::from_utf8(authorization).ok().and_then(|line| line.strip_prefix(ALGORITHM));
        let fields = fields.ok_or("Authorization: malformed")?;
        let field = |name: &str| {
            let mut values =
                fields.split(',').filter_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
            values.next().filter(|_| values.next().is_none())
        };
        let credential = field("Credential").ok_or("Authorization: Credential is missing")?;
        let headers = field("SignedHeaders").ok_or("Authorization: SignedHeaders is missing")?;
        let signature = field("Signature").and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok());
        let signature = signature.and_then(|bytes| bytes.try_into().ok());
        let date = request.header(DATE.as_str()).ok_or("there must be a line X-Amz-Date")?;
        let scope = scope(credential)
            .ok_or("Authorization: Credential must be ID/DATE/REGION/SERVICE/aws4_request")?;
        if date.get(..8) != Some(scope[0]) {
            return Err("the days of Credential and X-Amz-Date are not the same");
        }
        let signed = Self {
            request,
            scope,
            date,
            headers,
            signature: signature.ok_or("Authorization: Signature must be 64 hexadecimal digits")?,
            content: request.header(CONTENT.as_str()),
        };
        signed.check_headers()?;
        signed.check_target()?;
        signed.check_content()?;
        Ok(signed)
    }

    /// All that this depends on has to be signed, and each name once: a short line with many names could mean much work.
    fn check_headers(&self) -> Result<(), &'static str> {
        let lines = self.request.headers();
        let names = || self.headers.split(';');
        if !names().is_sorted_by(|one, next| one < next) {
            return Err("SignedHeaders must be in their order, each once");
        }
        if names().any(|name| !lines.contains_key(name) || name.bytes().any(|b| b.is_ascii_uppercase())) {
            return Err("SignedHeaders must be there, and written in small letters");
        }
        if lines.get_all(DATE).iter().count() > 1 || lines.get_all(CONTENT).iter().count() > 1 {
            return Err("there must be one line X-Amz-Date, and one X-Amz-Content-Sha256 at most");
        }
        let is_signed = |name: &str| names().any(|signed| signed == name);
        let must_be = |name: &HeaderName| *name == header::HOST || name.as_str().starts_with("x-amz-");
        if lines.keys().any(|name| must_be(name) && !is_signed(name.as_str())) {
            return Err("Host and all X-Amz-… have to be signed");
        }
        Ok(())
    }

    /// What is signed must mean one thing only here, where paths are not shortened, and a plus in a query is a space.
    fn check_target(&self) -> Result<(), &'static str> {
        let mut segments = self.request.raw_path().split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            if matches!(segment, "." | "..") || segment.is_empty() && !is_last {
                return Err("in a signed path there are no segments that are empty, . or ..");
            }
        }
        if self.request.query().contains('+') {
            return Err("in a signed query a plus is %2B, and a space %20");
        }
        Ok(())
    }

    fn check_content(&self) -> Result<(), &'static str> {
        let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match self.content {
            Some(text) if !is_digest(text) => {
                Err("the body has to be signed: X-Amz-Content-Sha256 must be its SHA-256")
            }
            None if self.request.headers().contains_key(CONTENT) => Err("X-Amz-Content-Sha256: malformed"),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// The client's clock and ours are too far from each other.
    pub(super) fn check_time(&self, now: SystemTime) -> Result<(), &'static str> {
        let signed = time(self.date).ok_or("X-Amz-Date must be a time such as 20261126T142530Z")?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if now >= WRITTEN && now.abs_diff(signed) > TOLERANCE {
            return Err("X-Amz-Date is more than 15 minutes from the time here");
        }
        Ok(())
    }

    /// The digest of the body, if the head says it: then a wrong signature is known before the body is received.
    pub(super) fn content(&self) -> Option<&str> {
        self.content
    }

    /// Whether it is signed with this key, and has a body of this digest. Takes the same time wherever two signatures differ.
    pub(super) fn is_by(&self, key: &Key, content: &str) -> bool {
        let sign = |key: Hmac<Sha256>, text: &str| key.chain_update(text).finalize().into_bytes();
        let key = self.scope.iter().fold(key.0.clone(), |key, part| hmac(&sign(key, part)));
        let canonical = HEXLOWER.encode(&Sha256::digest(self.canonical(content)));
        let text = format!("{ALGORITHM}\n{}\n{}\n{canonical}", self.date, self.scope.join("/"));
        key.chain_update(text).verify_slice(&self.signature).is_ok()
    }

    /// All that is signed, in the one form that it has for that.
    fn canonical(&self, content: &str) -> Vec<u8> {
        let request = self.request;
        let mut text =
            format!("{}\n{}\n{}\n", request.method(), path(request.raw_path()), query(request.query()))
                .into_bytes();
        for name in self.headers.split(';') {
            text.extend_from_slice(name.as_bytes());
            let mut separator = b':';
            for line in request.headers().get_all(name) {
                text.push(separator);
                let words = line.as_bytes().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
                text.extend_from_slice(&words.collect::<Vec<_>>().join(&b' '));
                separator = b',';
            }
            text.push(b'\n');
        }
        text.push(b'\n');
        text.extend_from_slice(format!("{}\n{content}", self.headers).as_bytes());
        text
    }
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).unwrap_or_else(|_| unreachable!("a key may have any length"))
}

/// The access key's ID, which may be any, is before it.
fn scope(credential: &str) -> Option<[&str; 4]> {
    let mut parts = credential.rsplitn(5, '/');
    let mut scope = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    scope.reverse();
    let is_complete = scope[3] == "aws4_request" && scope.iter().all(|part| !part.is_empty());
    parts.next().filter(|id| is_complete && !id.is_empty()).map(|_| scope)
}

/// As it was sent, and encoded again: all services but one do so.
fn path(sent: &str) -> Cow<'_, str> {
    percent_encode(sent.as_bytes(), PATH).into()
}

/// The parameters in their order, encoded in one way.
fn query(sent: &str) -> String {
    let encoded = |text| percent_encode(&Cow::from(percent_decode_str(text)), QUERY).to_string();
    let pairs = sent.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// The time since 1970 of a text such as `20261126T142530Z`.
fn time(text: &str) -> Option<Duration> {
    let digits = text.strip_suffix('Z').and_then(|text| text.split_once('T'));
    let (day, time) = digits.filter(|(day, time)| day.len() == 8 && time.len() == 6)?;
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let (day, time) = (number(day)?, number(time)?);
    let (year, month, day) = (day / 10_000, day / 100 % 100, day % 100);
    let (hour, minute, second) = (time / 10_000, time / 100 % 100, time % 100);
    let is_time = hour < 24 && minute < 60 && second <= 60;
    let days = days(year, month, day).filter(|_| is_time)?;
    Some(Duration::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second))
}

/// Days since the first of 1970, counted in years that begin with March: so the day that only some years have is the last one.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = year * 365 + year / 4 - year / 100 + year / 400; // since 0000-03-01
    Some(before + (153 * month + 2) / 5 + day - 1 - 719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::parse_head;

    const SECRET: &[u8] = b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const NOW: u64 = 1_440_938_160; // 2015-08-30 12:36:00

    fn request(request: &str, lines: &str) -> Box<Request> {
        let head = format!(
            "{request} HTTP/1.1\r\nHost:example.amazonaws.com\r\n{lines}X-Amz-Date:20150830T123600Z\r\n\r\n"
        );
        parse_head(head.as_bytes(), 16_000).unwrap().unwrap().0
    }

    fn authorization(headers: &str, signature: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={headers}, \
             Signature={signature}"
        )
    }

    /// What is wrong with a request; `None`: nothing is.
    fn check(request: &Request, authorization: &str, body: &[u8]) -> Option<&'static str> {
        let signed = match Signed::parse(authorization.as_bytes(), request) {
            Ok(signed) => signed,
            Err(why) => return Some(why),
        };
        (!signed.is_by(&Key::new(SECRET), &digest(body))).then_some("wrong")
    }

    /// From the test suite of AWS (aws-sig-v4-test-suite): what is there the request, and the signature. Left out are paths that are
    /// not normal, which are refused here, and what is no HTTP.
    #[test]
    fn signatures_are_those_of_aws() {
        for (line, lines, body, signature) in [
            ("GET /", "", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST /", "", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            ("GET /ሴ", "", "", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
            (
                "GET /example/$delete",
                "",
                "",
                "a853c9b21b528b19643d00910d35b83a10c366a10833ceefb45edd6c80e40f27",
            ),
            (
                "GET /-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
                "",
                "",
                "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
            ),
            (
                "POST /?Param1=value1",
                "",
                "",
                "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
            ),
            (
                "GET /?Param2=value2&Param1=value1",
                "",
                "",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "GET /?Param1=value2&Param1=value1",
                "",
                "",
                "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694",
            ),
            (
                "GET /?Param1=value2&Param1=Value1",
                "",
                "",
                "eedbc4e291e521cf13422ffca22be7d2eb8146eecf653089df300a15b2382bd1",
            ),
            (
                "GET /?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
                "",
                "",
                "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
            ),
            ("GET /?ሴ=bar", "", "", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"),
            (
                "GET /",
                "My-Header1: value1\r\nMy-Header2: \"a   b   c\"\r\n",
                "",
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
            (
                "GET /",
                "My-Header1:value4\r\nMy-Header1:value1\r\nMy-Header1:value3\r\nMy-Header1:value2\r\n",
                "",
                "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
            ),
            (
                "POST /",
                "My-Header1:VALUE1\r\n",
                "",
                "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
            ),
            (
                "POST /",
                "Content-Type:application/x-www-form-urlencoded\r\n",
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let names = lines.lines().filter_map(|line| line.split_once(':'));
            let mut names: Vec<_> = names.map(|(name, _)| name.to_ascii_lowercase()).collect();
            names.extend(["host".to_owned(), "x-amz-date".to_owned()]);
            names.sort();
            names.dedup();
            let authorization = authorization(&names.join(";"), signature);
            let request = request(line, lines);
            assert_eq!(check(&request, &authorization, body.as_bytes()), None, "{line} {lines}");
            let other = [body.as_bytes(), b"x"].concat();
            assert_eq!(check(&request, &authorization, &other), Some("wrong"), "{line} {lines}");
        }
    }

    #[test]
    fn paths_are_encoded_twice() {
        assert_eq!(
            path("/prod/%40connections/L0SM9cOFvHcCIhw%3D"),
            "/prod/%2540connections/L0SM9cOFvHcCIhw%253D"
        );
        assert_eq!(path("/@connections/a"), "/%40connections/a");
        assert_eq!(query("b=%2fx&a&&c=/="), "a=&b=%2Fx&c=%2F%3D");
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        let good = "host;x-amz-date";
        let signature = "0".repeat(64);
        let refused = |line: &str, lines: &str, authorization: &str, part: &str| {
            let why = check(&request(line, lines), authorization, b"");
            assert!(why.is_some_and(|why| why.contains(part)), "{line} {lines} {authorization}: {why:?}");
        };
        let all = |headers: &str| authorization(headers, &signature);
        refused("GET /", "", &all(good), "wrong");
        for headers in ["x-amz-date;host", "host;host;x-amz-date", ""] {
            refused("GET /", "", &all(headers), "");
        }
        refused("GET /", "", &all("host"), "have to be signed");
        refused("GET /", "", &all("x-amz-date"), "have to be signed");
        refused("GET /", "", &all("Host;x-amz-date"), "small letters");
        refused("GET /", "", &all("host;missing;x-amz-date"), "must be there");
        refused("GET /", "X-Amz-Any: x\r\n", &all(good), "have to be signed");
        refused("GET /", "X-Amz-Date: 20150830T123600Z\r\n", &all(good), "one line");
        for content in
            ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "", &"g".repeat(64), "\u{ff}"]
        {
            let lines = format!("X-Amz-Content-Sha256: {content}\r\n");
            refused("POST /", &lines, &all("host;x-amz-content-sha256;x-amz-date"), "");
            assert_ne!(
                check(&request("POST /", &lines), &all("host;x-amz-content-sha256;x-amz-date"), b""),
                Some("wrong")
            );
        }
        for line in ["GET /a/../b", "GET //a", "GET /a//b", "GET /./a", "GET /a/."] {
            refused(line, "", &all(good), "signed path");
        }
        refused("GET /?a=b+c", "", &all(good), "plus");
        for (from, to, part) in [
            ("AKIDEXAMPLE/", "/", "Credential must be"),
            ("aws4_request", "aws5_request", "Credential must be"),
            ("/service/", "//", "Credential must be"),
            ("us-east-1/", "", "Credential must be"),
            ("20150830", "20150831", "days"),
            ("Credential", "credential", "Credential is missing"),
            ("Credential", "Signature=0,Credential", "Signature must be"),
            ("SignedHeaders", "SignedHeaders=host,SignedHeaders", "SignedHeaders is missing"),
            ("000", "00", "Signature must be"),
            ("000", "00g", "Signature must be"),
            ("000", "00A", "Signature must be"),
            ("SHA256 ", "SHA256", ""),
        ] {
            refused("GET /", "", &all(good).replacen(from, to, 1), part);
        }
        let id_with_slash = all(good).replace("AKIDEXAMPLE", "a/b");
        refused("GET /", "", &id_with_slash, "wrong");
    }

    #[test]
    fn clocks_may_differ_by_a_quarter_of_an_hour_and_one_that_is_not_set_judges_none() {
        let request = request("GET /", "");
        let line = authorization("host;x-amz-date", &"0".repeat(64));
        let mut signed = Signed::parse(line.as_bytes(), &request).unwrap();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(signed.check_time(at(NOW)).is_ok(), "before this was written");
        assert!(signed.check_time(at(0)).is_ok());
        assert!(signed.check_time(UNIX_EPOCH - Duration::from_secs(1)).is_ok());
        signed.date = "20261126T142530Z";
        let now = 1_795_703_130;
        for (clock, is_good) in [
            (now, true),
            (now + 900, true),
            (now - 900, true),
            (now + 901, false),
            (now - 901, false),
            (WRITTEN.as_secs(), false),
            (WRITTEN.as_secs() - 1, true),
        ] {
            assert_eq!(signed.check_time(at(clock)).is_ok(), is_good, "{clock}");
        }
        for malformed in [
            "",
            "20261126T142530",
            "20261126 142530Z",
            "2026112T1425300Z",
            "20261326T142530Z",
            "20261126T242530Z",
            "+0261126T142530Z",
            "19691126T142530Z",
        ] {
            signed.date = malformed;
            assert!(signed.check_time(at(now)).is_err(), "{malformed}");
        }
    }

    proptest! {
        /// The same time as another format has it.
        #[test]
        fn any_time(seconds in 0..253_402_300_800_u64) {
            let http = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month = MONTHS.find(&http[8..11]).unwrap() / 3 + 1;
            let text = format!("{}{month:02}{}T{}Z", &http[12..16], &http[5..7], http[17..25].replace(':', ""));
            prop_assert_eq!(time(&text), Some(Duration::from_secs(seconds)));
        }

        #[test]
        fn any_authorization(line in "AWS4-HMAC-SHA256[ =,/a-zA-Z0-9]{0,200}") {
            let _ = check(&request("GET /", ""), &line, b"");
        }
    }
}
