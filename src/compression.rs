//! permessage-deflate (RFC 7692): what the user may choose, and how client and server negotiate its parameters.
//!
//! The compression itself is in `codec/deflate.rs`.

use std::ops::RangeInclusive;

use crate::codec::{Deflate, Direction, MAX_WINDOW_BITS, MIN_WINDOW_BITS};

/// The window sizes that may be offered, as binary logarithms (RFC 7692, section 7.1.2). zlib cannot compress with 8.
const WINDOW_BITS: RangeInclusive<u8> = 8..=MAX_WINDOW_BITS;

/// The compression level of shared compressors: zlib's default.
const POOLED_LEVEL: u8 = 6;

/// Whether messages are compressed: for clients that offer it, or as a [`Client`](crate::Client) offers it (permessage-deflate, RFC
/// 7692).
///
/// Text such as JSON takes a third to a tenth of the bytes; the price is some 10 µs of computing for each message. Data that
/// is already compressed, such as pictures, does not become smaller. It is off by default.
///
/// Do not compress messages that hold a secret together with data that an attacker chooses: TLS does not hide the length of
/// the messages, and from that the attacker can guess the secret.
///
/// ```
/// use switchboard::{Compression, Server};
/// # struct Echo;
/// # impl switchboard::WebSocketServer for Echo {
/// #     fn server(&mut self, _: &mut switchboard::WebSocket) -> switchboard::ServerResult { Ok(()) }
/// # }
///
/// // For all routes; one route's own choice is made with `Opening::set_compression`.
/// let server = Server::builder()
///     .listen("127.0.0.1:0")
///     .compression(Compression::Pooled)
///     .route("/echo", || Echo)
///     .bind()?;
/// # Ok::<(), switchboard::ServerError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Nothing is compressed.
    #[default]
    Off,
    /// Each message is compressed on its own ("no context takeover", in both directions), by compressors that all
    /// connections share: no connection keeps any memory for it, and a broadcast is compressed once for all. Best for many
    /// connections, and for machines with little memory.
    Pooled,
    /// Each message is compressed with reference to earlier ones: about half of the bytes of `Pooled` if messages are
    /// similar. It costs 350 to 460 KiB of memory for each connection that sends and receives, all included; 310 KiB of them,
    /// the compressor, are freed after ten seconds without a message. What is left, 40 to 125 KiB, are the last
    /// `2^window_bits` bytes that were received, and what the allocator keeps.
    Dedicated {
        /// How far compression refers back, in both directions: `2^window_bits` bytes. From 9 to 15; other values are
        /// replaced by the nearest of these. The client may ask for less.
        window_bits: u8,
        /// The compression level: from 1, the fastest, to 9, the smallest result. 6 is zlib's default.
        level: u8,
    },
}

/// What was chosen, with numbers that can be.
struct Wanted {
    pooled: bool,
    window_bits: u8,
    level: u8,
}

/// One of the client's offers (RFC 7692, section 7.1).
#[derive(Debug, Default, PartialEq)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// Without a value: the server may choose one.
    client_max_window_bits: Option<Option<u8>>,
}

impl Compression {
    /// Accepts the first of the client's offers that can be accepted. Returns the parameters, as seen from the server's end,
    /// and the value of the response's `Sec-WebSocket-Extensions`. An offer that is malformed, or has anything unknown in it,
    /// is declined.
    pub(crate) fn negotiate(
        self,
        headers: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Option<(Deflate, String)> {
        let wanted = self.wanted()?;
        headers.into_iter().find_map(|header| {
            // What is not text declines only the offer that it is in.
            let header = String::from_utf8_lossy(header.as_ref());
            let mut offers = split(&header, ',').filter_map(Offer::parse);
            offers.find_map(|offer| offer.accept(&wanted))
        })
    }

    /// `None`: nothing is compressed.
    fn wanted(self) -> Option<Wanted> {
        Some(match self {
            Self::Off => return None,
            Self::Pooled => Wanted { pooled: true, window_bits: MAX_WINDOW_BITS, level: POOLED_LEVEL },
            Self::Dedicated { window_bits, level } => Wanted {
                pooled: false,
                window_bits: window_bits.clamp(MIN_WINDOW_BITS, MAX_WINDOW_BITS),
                level: level.clamp(1, 9),
            },
        })
    }
}

impl Compression {
    /// What a client offers: the value of `Sec-WebSocket-Extensions`.
    pub(crate) fn offer(self) -> Option<String> {
        Some(match self.wanted()? {
            Wanted { pooled: true, .. } => {
                "permessage-deflate; client_no_context_takeover; server_no_context_takeover; \
                client_max_window_bits"
                    .into()
            }
            Wanted { window_bits: MAX_WINDOW_BITS, .. } => {
                "permessage-deflate; client_max_window_bits".into()
            }
            Wanted { window_bits: bits, .. } => {
                format!("permessage-deflate; client_max_window_bits={bits}; server_max_window_bits={bits}")
            }
        })
    }

    /// What the server has made of the [offer](Self::offer), as seen from the client's end. `None`: nothing is compressed.
    ///
    /// # Errors
    /// Why it is no answer to the offer (RFC 7692, section 7.1; RFC 6455, section 9.1).
    pub(crate) fn answered(
        self,
        headers: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<Option<Deflate>, &'static str> {
        let all: Vec<_> = headers.into_iter().map(|header| header.as_ref().to_vec()).collect();
        let all = all.iter().map(|header| String::from_utf8_lossy(header)).collect::<Vec<_>>().join(",");
        let mut extensions = split(&all, ',').map(str::trim).filter(|extension| !extension.is_empty());
        let Some(extension) = extensions.next() else { return Ok(None) };
        let (Some(offered), None) = (self.wanted(), extensions.next()) else {
            return Err("the server has chosen an extension that was not offered");
        };
        let answer =
            Offer::parse(extension).ok_or("the server's choice of extension is malformed or unknown")?;
        answer.settle(&offered).map(Some)
    }
}

impl Offer {
    /// Read as an answer to what a client has offered.
    fn settle(&self, offered: &Wanted) -> Result<Deflate, &'static str> {
        const NOT_OFFERED: &str =
            "the server's parameters of the compression are not within what was offered";
        let &Wanted { pooled, window_bits, level } = offered;
        let ours = match self.client_max_window_bits {
            None => window_bits,
            Some(Some(bits)) if bits <= window_bits => bits,
            Some(_) => return Err(NOT_OFFERED),
        };
        // What was asked of the server it has to say (sections 7.1.1.1 and 7.1.2.1).
        let theirs = self.server_max_window_bits.unwrap_or(MAX_WINDOW_BITS);
        if theirs > window_bits || pooled && !self.server_no_context_takeover {
            return Err(NOT_OFFERED);
        }
        Ok(Deflate {
            ours: Direction {
                window_bits: ours,
                no_context_takeover: pooled || self.client_no_context_takeover,
            },
            theirs: Direction { window_bits: theirs, no_context_takeover: self.server_no_context_takeover },
            level,
        })
    }

    fn parse(offer: &str) -> Option<Self> {
        let mut parts = split(offer, ';');
        if !parts.next()?.trim().eq_ignore_ascii_case("permessage-deflate") {
            return None;
        }
        let mut offer = Self::default();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(unquote(value.trim())?)),
                None => (part.trim(), None),
            };
            // No parameter may appear twice (section 7.1).
            let is_new = match (name.to_ascii_lowercase().as_str(), value) {
                ("server_no_context_takeover", None) => set(&mut offer.server_no_context_takeover),
                ("client_no_context_takeover", None) => set(&mut offer.client_no_context_takeover),
                ("server_max_window_bits", Some(bits)) => {
                    offer.server_max_window_bits.replace(window_bits(bits)?).is_none()
                }
                ("client_max_window_bits", None) => offer.client_max_window_bits.replace(None).is_none(),
                ("client_max_window_bits", Some(bits)) => {
                    offer.client_max_window_bits.replace(Some(window_bits(bits)?)).is_none()
                }
                _ => return None,
            };
            if !is_new {
                return None;
            }
        }
        Some(offer)
    }

    fn accept(&self, wanted: &Wanted) -> Option<(Deflate, String)> {
        let &Wanted { pooled, window_bits, level } = wanted;
        let server_window_bits = self.server_max_window_bits.unwrap_or(MAX_WINDOW_BITS).min(window_bits);
        if server_window_bits < MIN_WINDOW_BITS {
            return None;
        }
        // A client that does not offer this parameter uses the largest window (section 7.1.2.2).
        let client_window_bits = self
            .client_max_window_bits
            .map_or(MAX_WINDOW_BITS, |hint| hint.unwrap_or(MAX_WINDOW_BITS).min(window_bits));
        let server_no_context_takeover = pooled || self.server_no_context_takeover;
        let client_no_context_takeover = pooled || self.client_no_context_takeover;
        let mut response = String::from("permessage-deflate");
        if server_no_context_takeover {
            response += "; server_no_context_takeover";
        }
        if client_no_context_takeover {
            response += "; client_no_context_takeover";
        }
        if self.server_max_window_bits.is_some() || server_window_bits < MAX_WINDOW_BITS {
            response += &format!("; server_max_window_bits={server_window_bits}");
        }
        if self.client_max_window_bits.is_some() && client_window_bits < MAX_WINDOW_BITS {
            response += &format!("; client_max_window_bits={client_window_bits}");
        }
        let deflate = Deflate {
            ours: Direction {
                window_bits: server_window_bits,
                no_context_takeover: server_no_context_takeover,
            },
            theirs: Direction {
                window_bits: client_window_bits,
                no_context_takeover: client_no_context_takeover,
            },
            level,
        };
        Some((deflate, response))
    }
}

/// The parts between separators that are not within quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
        !quoted && c == separator
    })
}

/// A value is a token, or a token in quotes (RFC 6455, section 9.1). Escapes are left as they are: no number needs one.
fn unquote(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(value),
    }
}

/// A decimal number without leading zeros (section 7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok().filter(|bits| WINDOW_BITS.contains(bits))?;
    (value == bits.to_string()).then_some(bits)
}

/// Sets a flag. Returns whether it was not set before.
fn set(flag: &mut bool) -> bool {
    !std::mem::replace(flag, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEDICATED: Compression = Compression::Dedicated { window_bits: 15, level: 6 };

    fn answer(compression: Compression, offer: &str) -> Option<String> {
        compression.negotiate([offer]).map(|(_, response)| response)
    }

    /// The window bits of the server and of the client.
    fn windows(deflate: Deflate) -> (u8, u8) {
        (deflate.ours.window_bits, deflate.theirs.window_bits)
    }

    #[test]
    fn an_offer_as_browsers_make_it_is_accepted() {
        let offer = "permessage-deflate; client_max_window_bits";
        assert_eq!(answer(Compression::Off, offer), None);
        assert_eq!(
            answer(Compression::Pooled, offer).unwrap(),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        );
        assert_eq!(answer(DEDICATED, offer).unwrap(), "permessage-deflate");
        let small = Compression::Dedicated { window_bits: 10, level: 1 };
        let (deflate, response) = small.negotiate([offer]).unwrap();
        assert_eq!(response, "permessage-deflate; server_max_window_bits=10; client_max_window_bits=10");
        assert_eq!((windows(deflate), deflate.level), ((10, 10), 1));
        assert!(!deflate.ours.no_context_takeover && !deflate.theirs.no_context_takeover);
    }

    #[test]
    fn each_parameter_is_negotiated() {
        let with = |parameter: &str| answer(DEDICATED, &format!("permessage-deflate{parameter}"));
        let accepted = |parameter: &str| with(parameter).unwrap().replace("permessage-deflate", "");
        assert_eq!(accepted(""), "");
        assert_eq!(accepted("; server_no_context_takeover"), "; server_no_context_takeover");
        assert_eq!(accepted(" ;\tClient_No_Context_Takeover "), "; client_no_context_takeover");
        assert_eq!(accepted("; server_max_window_bits=9"), "; server_max_window_bits=9");
        assert_eq!(accepted("; server_max_window_bits = \"12\""), "; server_max_window_bits=12");
        assert_eq!(accepted("; server_max_window_bits=15"), "; server_max_window_bits=15");
        assert_eq!(accepted("; client_max_window_bits=8"), "; client_max_window_bits=8");
        assert_eq!(accepted("; client_max_window_bits=15"), "");
        assert_eq!(with("; server_max_window_bits=8"), None, "zlib does not support it");
    }

    #[test]
    fn the_smaller_window_is_used() {
        let small = Compression::Dedicated { window_bits: 12, level: 6 };
        let both = "permessage-deflate; server_max_window_bits=10; client_max_window_bits=14";
        let (deflate, _) = small.negotiate([both]).unwrap();
        assert_eq!(windows(deflate), (10, 12));
        // This client did not offer client_max_window_bits, so it may use the largest window.
        let (deflate, response) = small.negotiate(["permessage-deflate"]).unwrap();
        assert_eq!(windows(deflate), (12, 15));
        assert_eq!(response, "permessage-deflate; server_max_window_bits=12");
        let wild = Compression::Dedicated { window_bits: 200, level: 0 };
        let (deflate, _) = wild.negotiate([both]).unwrap();
        assert_eq!((windows(deflate), deflate.level), ((10, 14), 1));
    }

    #[test]
    fn malformed_offers_are_declined() {
        for parameter in [
            "=1",
            ";",
            "; ",
            "; unknown",
            "; server_no_context_takeover=1",
            "; server_no_context_takeover; server_no_context_takeover",
            "; client_no_context_takeover; client_no_context_takeover",
            "; client_max_window_bits; client_max_window_bits=10",
            "; server_max_window_bits",
            "; server_max_window_bits=",
            "; server_max_window_bits=010",
            "; server_max_window_bits=+10",
            "; server_max_window_bits=7",
            "; server_max_window_bits=16",
            "; server_max_window_bits=1000",
            "; server_max_window_bits=\"10",
            "; server_max_window_bits=10; server_max_window_bits=10",
            "; client_max_window_bits=x",
            "; client_max_window_bits=\"1\\0\"",
        ] {
            assert_eq!(answer(DEDICATED, &format!("permessage-deflate{parameter}")), None, "{parameter}");
        }
        for other in ["", ",", "x-webkit-deflate-frame", "permessage-deflated", "\"permessage-deflate\""] {
            assert_eq!(answer(DEDICATED, other), None, "{other}");
        }
    }

    #[test]
    fn what_a_client_offers_is_what_our_server_accepts() {
        let small = Compression::Dedicated { window_bits: 10, level: 1 };
        for client in [Compression::Pooled, DEDICATED, small] {
            for server in [Compression::Pooled, DEDICATED, small] {
                let (deflate, answer) = server.negotiate([client.offer().unwrap()]).unwrap();
                let of_client = client.answered([answer.as_str()]).unwrap().unwrap();
                assert_eq!(
                    (of_client.ours, of_client.theirs),
                    (deflate.theirs, deflate.ours),
                    "{client:?} {server:?}: {answer}"
                );
            }
        }
        assert_eq!(Compression::Off.offer(), None);
        assert_eq!(Compression::Pooled.answered([""; 0]), Ok(None));
    }

    #[test]
    fn an_answer_beyond_the_offer_is_none() {
        let pooled = "permessage-deflate; server_no_context_takeover";
        assert!(Compression::Pooled.answered([pooled]).unwrap().unwrap().ours.no_context_takeover);
        assert!(Compression::Off.answered([pooled]).is_err());
        assert!(Compression::Off.answered(["x-other"]).is_err());
        let small = Compression::Dedicated { window_bits: 10, level: 6 };
        for (offered, answer) in [
            (Compression::Pooled, "permessage-deflate"),
            (DEDICATED, "x-other"),
            (DEDICATED, "permessage-deflate, permessage-deflate"),
            (DEDICATED, "permessage-deflate, x-other"),
            (DEDICATED, "permessage-deflate; unknown"),
            (DEDICATED, "permessage-deflate; client_max_window_bits"),
            (DEDICATED, "permessage-deflate; server_max_window_bits=16"),
            (DEDICATED, "permessage-deflate; server_max_window_bits"),
            (DEDICATED, "permessage-deflate; server_no_context_takeover=1"),
            (DEDICATED, "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9"),
            (small, "permessage-deflate"),
            (small, "permessage-deflate; server_max_window_bits=11"),
            (small, "permessage-deflate; server_max_window_bits=9; client_max_window_bits=11"),
        ] {
            assert!(offered.answered([answer]).is_err(), "{offered:?}: {answer}");
        }
        for (answer, ours, theirs) in [
            ("permessage-deflate", 15, 15),
            ("permessage-deflate; client_max_window_bits=8; server_max_window_bits=8", 8, 8),
            ("Permessage-Deflate;client_no_context_takeover; server_max_window_bits=\"12\"", 15, 12),
        ] {
            let deflate = DEDICATED.answered([answer]).unwrap().unwrap();
            assert_eq!(windows(deflate), (ours, theirs), "{answer}");
        }
    }

    #[test]
    fn the_first_offer_that_can_be_accepted_is_accepted() {
        let offers = [
            "x-unknown; a=\"b, permessage-deflate; \\\" \", permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=11, permessage-deflate",
        ];
        let (_, response) = DEDICATED.negotiate(offers).unwrap();
        assert_eq!(response, "permessage-deflate; server_max_window_bits=11");
    }
}
