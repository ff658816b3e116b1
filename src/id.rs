//! Unguessable names of connections, which say which node has accepted them.

use std::{
    fmt,
    hash::{BuildHasherDefault, Hash, Hasher},
    str::FromStr,
};

use data_encoding::BASE64URL_NOPAD;

/// 96 random bits and the node, as base64 without padding.
const LEN: usize = 22;

/// So many of the characters the log shows.
const SHORT_LEN: usize = 8;

/// Names a connection (`WebSocketID`): unique, unguessable, printable, and safe in a URL path.
///
/// It is shown as 22 letters, digits, `-` and `_`: 96 random bits, then the 32 bits of the [node](Self::node). Whoever has
/// all of it can reach the connection. So [`Display`](fmt::Display) shows all of it, to save it or to send it, but
/// [`Debug`](fmt::Debug) and the library's log show only how it begins, [`short`](Self::short).
///
/// ```
/// # fn main() -> switchboard::Result<()> {
/// use switchboard::WebSocketId;
///
/// let saved = "b3kT9ZcYw4mQ1s8xAAAAKg";
/// let id: WebSocketId = saved.parse()?;
/// assert_eq!(id.to_string(), saved);
/// assert_eq!(id.node().get(), 42);
/// assert_eq!(format!("{id:?}"), "WebSocketId(b3kT9ZcY…)");
/// assert!("nobody".parse::<WebSocketId>().is_err());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WebSocketId([u8; LEN]);

/// Bytes that nobody can guess.
///
/// # Panics
/// If the operating system has no random numbers, which on Unix happens only early at boot.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("random numbers from the operating system");
    bytes
}

impl WebSocketId {
    /// # Panics
    /// As [`random_bytes`].
    pub(crate) fn random(node: NodeId) -> Self {
        let mut bytes = [0; 16];
        let (random, of_node) = bytes.split_at_mut(12);
        random.copy_from_slice(&random_bytes::<12>());
        of_node.copy_from_slice(&node.0.to_be_bytes());
        let mut text = [0; LEN];
        BASE64URL_NOPAD.encode_mut(&bytes, &mut text);
        Self(text)
    }

    /// The ID as text, all of it.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default() // it is ASCII
    }

    /// Its first 8 characters, for a log: they tell connections apart, and nobody can reach one by them.
    pub fn short(&self) -> &str {
        &self.as_str()[..SHORT_LEN]
    }

    /// The node that has accepted the connection: of several servers, which one; of one server, which of its starts, unless
    /// [`ServerBuilder::node`](crate::ServerBuilder::node) sets it.
    pub fn node(&self) -> NodeId {
        let [.., a, b, c, d] = decode(&self.0).unwrap_or_default();
        NodeId(u32::from_be_bytes([a, b, c, d]))
    }

    /// A number that is different for most IDs, for tables.
    pub(crate) fn spread(&self) -> usize {
        let [first, second, ..] = self.0;
        usize::from(first) + usize::from(second)
    }
}

/// The bytes of an ID, or `None` for what cannot be one: no random bits and no node are shown like that.
fn decode(text: &[u8; LEN]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    BASE64URL_NOPAD.decode_mut(text, &mut bytes).ok()?;
    Some(bytes)
}

impl fmt::Display for WebSocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Shows only the first characters: with the whole ID from a log, anyone could reach the connection.
impl fmt::Debug for WebSocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebSocketId({}…)", self.short())
    }
}

impl Hash for WebSocketId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// For tables of the IDs that this process has made: nobody else can choose what is in them, so their own random bits do
/// as a hash. SipHash was 3 % of the work for a connection.
pub(crate) type RandomBits = BuildHasherDefault<IdHasher>;

/// Takes the first characters of an ID as a hash.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, id: &[u8]) {
        let characters = id.first_chunk().copied().map_or(0, u64::from_le_bytes);
        // Characters leave some bits unused, and tables look at the lowest and the highest: all of them have to matter.
        let product = u128::from(characters) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// For an ID that was saved, or came from elsewhere. Whether a connection has it is another question.
impl FromStr for WebSocketId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let text = text.as_bytes().try_into().map_err(|_| InvalidId(()))?;
        if decode(&text).is_some() { Ok(Self(text)) } else { Err(InvalidId(())) }
    }
}

/// As [`FromStr`].
impl TryFrom<&str> for WebSocketId {
    type Error = InvalidId;

    fn try_from(text: &str) -> Result<Self, InvalidId> {
        text.parse()
    }
}

/// A text that cannot be a [`WebSocketId`]: no connection has ever had such an ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidId(());

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not the ID of a connection: it has {LEN} characters, letters, digits, - and _, of which the last is A, Q, g or w"
        )
    }
}

impl std::error::Error for InvalidId {}

/// Names a server among several that work together, its node: random at each start, or what
/// [`ServerBuilder::node`](crate::ServerBuilder::node) sets. [`WebSocketId::node`] tells it of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// A node's number, of the program's choice.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// # Panics
    /// As [`random_bytes`].
    pub(crate) fn random() -> Self {
        Self(u32::from_be_bytes(random_bytes()))
    }
}

impl From<u32> for NodeId {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many of the characters show the random bits, and nothing else.
    const RANDOM_LEN: usize = 16;

    #[test]
    fn is_printable_and_new_each_time() {
        let (a, b) = (WebSocketId::random(NodeId(7)), WebSocketId::random(NodeId(7)));
        assert_eq!((a.as_str().len(), size_of::<WebSocketId>()), (22, 22));
        assert!(a.as_str().bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)));
        assert_ne!(a, b);
        assert_ne!(a.0[..RANDOM_LEN], b.0[..RANDOM_LEN]);
        assert_eq!(a.0[RANDOM_LEN..], b.0[RANDOM_LEN..], "the end is the node's");
    }

    #[test]
    fn names_its_node() {
        for node in [0, 1, 42, 0x8000_0000, u32::MAX] {
            let id = WebSocketId::random(NodeId::new(node));
            assert_eq!((id.node(), id.node().get()), (node.into(), node));
            assert_eq!(id.to_string().parse::<WebSocketId>().unwrap().node().get(), node);
        }
        assert_ne!(NodeId::random(), NodeId::random(), "that happens once in four thousand million runs");
    }

    #[test]
    fn display_shows_all_and_debug_the_first_eight() {
        let id = WebSocketId::random(NodeId(1));
        let (shown, debugged) = (id.to_string(), format!("{id:?}"));
        assert_eq!((shown.as_str(), shown.parse()), (id.as_str(), Ok(id)));
        assert_eq!(debugged, format!("WebSocketId({}…)", &shown[..8]));
        assert_eq!(id.short(), &shown[..8]);
    }

    #[test]
    fn what_cannot_be_one_is_refused() {
        let good = WebSocketId::random(NodeId(1)).to_string();
        let with = |index: usize, c: &str| format!("{}{c}{}", &good[..index], &good[index + 1..]);
        let bad = [String::new(), "nobody".into(), good[1..].into(), format!("{good}A"), format!("{good}==")];
        for text in bad.into_iter().chain(["+", "/", "=", " ", "\n", "\0", "%", "."].map(|c| with(3, c))) {
            let error = text.parse::<WebSocketId>().unwrap_err();
            assert!(error.to_string().contains("22 characters"), "{text}: {error}");
            assert_eq!(WebSocketId::try_from(text.as_str()), Err(error));
        }
        // As long in bytes, but not in characters.
        assert!(format!("{}é", &good[..20]).parse::<WebSocketId>().is_err());
        // Of the last character only two bits belong to the ID.
        let last = |c: u8| with(21, std::str::from_utf8(&[c]).unwrap()).parse::<WebSocketId>().is_ok();
        let taken: Vec<u8> = (0..128).filter(|&c| last(c)).collect();
        assert_eq!(taken, b"AQgw");
    }

    #[test]
    fn ids_are_spread_over_tables() {
        let mut parts = [0; 16];
        for _ in 0..16_000 {
            parts[WebSocketId::random(NodeId(1)).spread() % 16] += 1;
        }
        assert!(parts.iter().all(|&n| (500..2000).contains(&n)), "{parts:?}");
    }

    #[test]
    fn their_hashes_use_all_bits() {
        use std::hash::BuildHasher;
        let mut counts = [0; 64];
        let (mut low, mut high) = ([0; 128], [0; 128]);
        for _ in 0..16_000 {
            let hash = RandomBits::default().hash_one(WebSocketId::random(NodeId(1)));
            counts.iter_mut().enumerate().for_each(|(bit, count)| *count += hash >> bit & 1);
            low[(hash & 127) as usize] += 1;
            high[(hash >> 57) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (7000..9000).contains(count)), "{counts:?}");
        assert!(low.iter().chain(&high).all(|n| (40..400).contains(n)), "{low:?} {high:?}");
    }
}
