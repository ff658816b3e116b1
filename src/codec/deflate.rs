//! Compressed messages (permessage-deflate, RFC 7692, section 7.2).
//!
//! While a message arrives, the connection uses an inflater from a pool. The inflater gets the last bytes of the peer's earlier
//! messages, which this one may refer to. Between messages a connection keeps only those bytes.

use std::{
    cell::OnceCell,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress, Status};

use super::{failure::Failure, partial::Partial, work::Work};
use crate::{
    buffered::{Buffered, MIN_SHARED, share},
    message::Message,
    scarce::{self, Short, grow},
    sync::LockExt,
};

/// The end of each compressed message: the sender removes it, and the receiver appends it again (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// An empty block that is marked as the last one (RFC 1951, section 3.2.4).
const LAST_BLOCK: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// Bytes inflated at a time.
const CHUNK: usize = 16 * 1024;

/// About what an inflater takes.
const INFLATER_SIZE: usize = CHUNK + 48 * 1024;

/// About what a compressor takes.
const COMPRESSOR_SIZE: usize = 320 * 1024;

/// Bytes of compressed blocks taken at a time: they may inflate to nothing.
const PIECE: usize = 4 * 1024;

/// An empty block may have more bytes than this, but then it has them on purpose.
const MAX_EMPTY: usize = 16;

/// Compressing a message of at least this size takes a third of a millisecond or more: too long for the connection's lock.
const MIN_LENT_SIZE: usize = 16 * 1024;

/// The smallest window that zlib can compress with, as the binary logarithm of its size.
pub(crate) const MIN_WINDOW_BITS: u8 = 9;
/// The largest window (RFC 7692, section 7.1.2).
pub(crate) const MAX_WINDOW_BITS: u8 = 15;

/// The most compressors or inflaters that a pool keeps. Each use is short, so more are seldom in use at the same time.
const POOL_SIZE: usize = 4;

static INFLATERS: Pool<Inflater> = Pool::new();

/// One pool for each size of the window.
static COMPRESSORS: [Pool<Compress>; WINDOWS] = [const { Pool::new() }; WINDOWS];
const WINDOWS: usize = (MAX_WINDOW_BITS - MIN_WINDOW_BITS) as usize + 1;

/// The negotiated parameters of permessage-deflate, as seen from our end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deflate {
    /// For the messages that we send.
    pub(crate) ours: Direction,
    /// For the messages that the peer sends.
    pub(crate) theirs: Direction,
    /// Our compression level: from 1, the fastest, to 9, the smallest result.
    pub(crate) level: u8,
}

/// The parameters of one direction (RFC 7692, section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Direction {
    /// A message refers back at most `2^window_bits` bytes. From 8 to 15.
    pub(crate) window_bits: u8,
    /// No message refers to an earlier one, so messages that we send are compressed with a compressor from the pool.
    pub(crate) no_context_takeover: bool,
}

impl Direction {
    /// How many bytes a message may refer back to.
    fn window_size(self) -> usize {
        1 << self.window_bits
    }
}

impl Deflate {
    /// The same parameters, as seen from the peer's end.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_peer(self) -> Self {
        Self { ours: self.theirs, theirs: self.ours, level: self.level }
    }

    /// Compresses a message of at least `min_size` bytes, if that is possible without the connection's own compressor. With
    /// `forms`, the compressed form is taken from there, or stored there for the next connection.
    pub(crate) fn prepare(&self, message: Message, min_size: usize, forms: Option<&Forms>) -> Outgoing {
        if !self.ours.no_context_takeover || !self.is_worth_it(&message, min_size) {
            return Outgoing { message, compressed: None, is_shared: forms.is_some() };
        }
        let compress = || self.compress_alone(message.as_bytes());
        let compressed = match forms {
            Some(forms) => forms.get_or_init(self.index(), compress),
            None => compress(),
        };
        Outgoing { message, compressed, is_shared: forms.is_some() }
    }

    /// The most bytes that a message of `size` bytes may have on the wire. Data that cannot be compressed becomes longer, most
    /// of all with a compressor that uses little memory. The size after inflating is checked, too.
    pub(super) fn bound(size: u64) -> u64 {
        size.saturating_add(size / 8).saturating_add(64)
    }

    /// zlib cannot compress with a window of 8 bits, which a server may require of a client: then nothing is compressed.
    fn is_worth_it(&self, message: &Message, min_size: usize) -> bool {
        self.ours.window_bits >= MIN_WINDOW_BITS && message.len() >= min_size.max(1)
    }

    /// Compresses with a compressor from the pool. `None` if the payload would not become smaller.
    fn compress_alone(&self, payload: &[u8]) -> Option<Bytes> {
        if !has_room(payload) {
            return None;
        }
        let pool = &COMPRESSORS[self.index()];
        let mut compressor = pool.take(|| self.compressor());
        // Its last user may have set another level. This cannot fail, because there is nothing to flush.
        let _ = compressor.set_level(Level::new(self.level.into()));
        let compressed = compress(&mut compressor, payload);
        compressor.reset();
        pool.give_back(compressor);
        compressed.filter(|compressed| compressed.len() < payload.len()).map(Bytes::from)
    }

    /// The index of our window size in `COMPRESSORS` and in `Forms`.
    fn index(&self) -> usize {
        usize::from(self.ours.window_bits.saturating_sub(MIN_WINDOW_BITS)).min(WINDOWS - 1)
    }

    fn compressor(&self) -> Compress {
        Compress::new_with_window_bits(Level::new(self.level.into()), false, self.ours.window_bits)
    }
}

/// A message to be sent, with its compressed form if it has been compressed already.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) message: Message,
    pub(super) compressed: Option<Bytes>,
    /// It goes to others, too, and its memory counts once for all of them.
    pub(super) is_shared: bool,
}

impl Outgoing {
    pub(crate) fn new(message: Message, is_shared: bool) -> Self {
        Self { message, compressed: None, is_shared }
    }

    /// How many bytes only this connection holds for it.
    pub(crate) fn own_size(&self) -> usize {
        let of = |bytes: usize| if self.is_shared && bytes >= MIN_SHARED { 0 } else { bytes };
        of(self.message.len()) + self.compressed.as_ref().map_or(0, |compressed| of(compressed.len()))
    }
}

impl From<Message> for Outgoing {
    fn from(message: Message) -> Self {
        Self::new(message, false)
    }
}

/// A message and the connection's own compressor, lent out so that it can compress without the connection's lock.
#[derive(Debug)]
pub(crate) struct Compressing {
    compressor: Box<Compress>,
    outgoing: Outgoing,
}

impl Compressing {
    /// Compresses the message. This takes long: some 20 ms for 1 MiB. Without memory for that it is sent as it is.
    pub(crate) fn run(&mut self) {
        match compress(&mut self.compressor, self.outgoing.message.as_bytes()) {
            Some(compressed) => {
                self.outgoing.compressed = Some(compressed.into());
                self.outgoing.is_shared = false;
            }
            None => self.compressor.reset(), // it must not refer to what the peer has not got in this form
        }
    }
}

/// The compressed forms of one message, one for each size of the window: a broadcast is compressed once for each.
#[derive(Debug)]
pub(crate) struct Forms {
    compressed: [OnceCell<Option<Bytes>>; WINDOWS],
    /// Where they count.
    buffered: Arc<Buffered>,
}

impl Forms {
    pub(crate) fn new(buffered: &Arc<Buffered>) -> Self {
        Self { compressed: Default::default(), buffered: buffered.clone() }
    }

    fn get_or_init(&self, index: usize, compress: impl FnOnce() -> Option<Bytes>) -> Option<Bytes> {
        let shared = || Some(share(compress()?, &self.buffered));
        self.compressed[index].get_or_init(shared).clone()
    }
}

/// What one connection keeps for compression, in both directions.
#[derive(Debug)]
pub(super) struct Deflater {
    agreed: Deflate,
    /// Shorter messages are not compressed.
    min_size: usize,
    /// Made when it is first needed, and dropped when the connection is idle. That is allowed at any time: only the receiver
    /// has to remember earlier messages.
    compressor: Option<Box<Compress>>,
    /// The end of the peer's earlier messages, which later ones may refer to.
    history: Vec<u8>,
    /// Present while a message arrives.
    inflater: Option<Inflater>,
    /// Bytes of the message that the compressor is out for, if it is.
    lent: usize,
}

impl Deflater {
    pub(super) fn new(agreed: Deflate, min_size: usize) -> Self {
        Self { agreed, min_size, compressor: None, history: Vec::new(), inflater: None, lent: 0 }
    }

    /// Compresses a message with reference to earlier ones, if that was negotiated and the message is large enough.
    pub(super) fn deflate(&mut self, outgoing: &mut Outgoing) {
        if self.deflates(outgoing) {
            let compressor = self.compressor.get_or_insert_with(|| Box::new(self.agreed.compressor()));
            match compress(compressor, outgoing.message.as_bytes()) {
                Some(compressed) => {
                    outgoing.compressed = Some(compressed.into());
                    outgoing.is_shared = false; // what others get looks different
                }
                None => self.compressor = None, // as in `Compressing::run`
            }
        }
    }

    fn deflates(&self, outgoing: &Outgoing) -> bool {
        !self.agreed.ours.no_context_takeover
            && self.agreed.is_worth_it(&outgoing.message, self.min_size)
            && has_room(outgoing.message.as_bytes())
    }

    /// Whether compressing this would block other threads that need the connection's lock for too long.
    pub(super) fn takes_long(&self, outgoing: &Outgoing) -> bool {
        outgoing.message.len() >= MIN_LENT_SIZE && self.deflates(outgoing)
    }

    /// Lends out the compressor for this message.
    pub(super) fn lend(&mut self, outgoing: Outgoing) -> Box<Compressing> {
        let compressor = self.compressor.take().unwrap_or_else(|| Box::new(self.agreed.compressor()));
        self.lent = outgoing.own_size();
        Box::new(Compressing { compressor, outgoing })
    }

    pub(super) fn take_back(&mut self, compressed: Compressing) -> Outgoing {
        self.compressor = Some(compressed.compressor);
        self.lent = 0;
        compressed.outgoing
    }

    /// Whether [`park`](Self::park) would free anything.
    pub(super) fn is_warm(&self) -> bool {
        self.compressor.is_some() || self.history.len() > self.agreed.theirs.window_size()
    }

    /// Inflates a piece of a message and appends it to `message`, which may become `max_size` bytes long. `is_last`: the
    /// message ends with this piece. Returns how much of the piece was taken, and whether all of it is through; if not, the
    /// work is done, and this goes on with the rest, even if nothing is left of the piece.
    #[inline(never)] // most connections never need it, and inlined it would take stack in all of them
    pub(super) fn inflate(
        &mut self,
        piece: &[u8],
        is_last: bool,
        message: &mut Partial,
        max_size: u64,
        work: &mut Work,
    ) -> Result<(usize, bool), Failure> {
        let mut inflater = match self.inflater.take() {
            Some(inflater) => inflater,
            None => {
                if !scarce::has(INFLATER_SIZE) {
                    return Err(Short.into());
                }
                let mut inflater = INFLATERS.take(Inflater::new);
                inflater.restart();
                inflater.load(self.window(), work)?;
                inflater
            }
        };
        let (taken, is_through) = self.inflate_piece(&mut inflater, piece, message, max_size, work)?;
        if !is_last || !is_through {
            self.inflater = Some(inflater);
            return Ok((taken, is_through));
        }
        // Some peers send an empty payload for an empty message, or after a block that is marked as the last one: no tail then.
        if inflater.raw.total_in() > 0 {
            let mut tail = &TAIL[..];
            while !tail.is_empty() {
                // So few bytes inflate to little.
                let (taken, _) =
                    self.inflate_piece(&mut inflater, tail, message, max_size, &mut Work::piece())?;
                tail = &tail[taken..];
            }
            if !inflater.is_between_blocks() {
                return Err(corrupt());
            }
        }
        INFLATERS.give_back(inflater);
        Ok((taken, true))
    }

    /// Returns what [`inflate`](Self::inflate) does.
    fn inflate_piece(
        &mut self,
        inflater: &mut Inflater,
        piece: &[u8],
        message: &mut Partial,
        max_size: u64,
        work: &mut Work,
    ) -> Result<(usize, bool), Failure> {
        let mut at = 0;
        loop {
            if work.is_done() {
                return Ok((at, false));
            }
            let rest = &piece[at..piece.len().min(at + PIECE)];
            if !inflater.is_loaded && !rest.is_empty() {
                if let Some(read) = inflater.skip_empty(rest) {
                    work.restart(0);
                    at += read;
                    continue;
                }
                inflater.load(self.window(), work)?;
            }
            let (read, written, status) = inflater.inflate(rest)?;
            work.inflate(read, written);
            at += read;
            let inflated = &inflater.chunk[..written];
            if (message.len() + written) as u64 > max_size {
                return Err(Failure::too_big(format!("message of more than {max_size} bytes")));
            }
            message.push(inflated)?;
            if !self.agreed.theirs.no_context_takeover {
                remember(&mut self.history, inflated, self.agreed.theirs.window_size());
            }
            match status {
                // A block may be marked as the last one (section 7.2.3.4): a new stream of blocks follows it.
                Status::StreamEnd => inflater.restart(),
                _ if written == inflater.chunk.len() => continue,
                _ if read == 0 && written == 0 && !rest.is_empty() => return Err(corrupt()),
                _ => {}
            }
            if at == piece.len() {
                return Ok((at, true));
            }
        }
    }

    /// The part of the history that may be referred to. With more of it, an inflater would accept some references that are too
    /// long, depending on how the bytes arrived.
    fn window(&self) -> &[u8] {
        &self.history[self.history.len().saturating_sub(self.agreed.theirs.window_size())..]
    }

    /// How many bytes it holds for messages on their way.
    pub(super) fn held(&self) -> usize {
        self.lent + if self.inflater.is_some() { INFLATER_SIZE } else { 0 }
    }

    /// Frees what only messages that are still to come would need: there will be none.
    pub(super) fn forget(&mut self) {
        self.inflater = None;
        self.history = Vec::new();
    }

    /// Frees the memory that is not required, but only makes messages smaller or faster.
    pub(super) fn park(&mut self) {
        self.compressor = None;
        keep_last(&mut self.history, self.agreed.theirs.window_size());
        self.history.shrink_to_fit();
    }
}

#[derive(Debug)]
struct Inflater {
    raw: Decompress,
    chunk: Box<[u8]>,
    /// It knows what blocks may refer to.
    is_loaded: bool,
}

impl Inflater {
    fn new() -> Self {
        Self { raw: Decompress::new(false), chunk: vec![0; CHUNK].into(), is_loaded: false }
    }

    /// Whether a new block can begin here; if not, the message was cut off. The inflater has to be restarted afterwards.
    fn is_between_blocks(&mut self) -> bool {
        let before = (self.raw.total_in(), self.raw.total_out());
        let status = self.raw.decompress(&LAST_BLOCK, &mut self.chunk, FlushDecompress::Sync);
        let after = (before.0 + LAST_BLOCK.len() as u64, before.1);
        matches!(status, Ok(Status::StreamEnd)) && (self.raw.total_in(), self.raw.total_out()) == after
    }

    /// How much was read, and written to the chunk.
    fn inflate(&mut self, piece: &[u8]) -> Result<(usize, usize, Status), Failure> {
        let (read, written) = (self.raw.total_in(), self.raw.total_out());
        let status =
            self.raw.decompress(piece, &mut self.chunk, FlushDecompress::Sync).map_err(|_| corrupt())?;
        let (read, written) = (self.raw.total_in() - read, self.raw.total_out() - written);
        Ok((read as usize, written as usize, status))
    }

    /// Begins a stream of blocks.
    fn restart(&mut self) {
        self.raw.reset(false);
        self.is_loaded = false;
    }

    /// The blocks may refer to `history`.
    fn load(&mut self, history: &[u8], work: &mut Work) -> Result<(), Failure> {
        if !history.is_empty() {
            self.raw.set_dictionary(history).map_err(|_| corrupt())?;
        }
        work.restart(history.len());
        self.is_loaded = true;
        Ok(())
    }

    /// Skips an empty block that is marked as the last one, if that comes next: it refers to nothing, so that a stream of these
    /// does not load the history again and again. Returns its size.
    fn skip_empty(&mut self, piece: &[u8]) -> Option<usize> {
        let inflated = self.inflate(&piece[..piece.len().min(MAX_EMPTY)]);
        self.raw.reset(false);
        match inflated {
            Ok((read, 0, Status::StreamEnd)) => Some(read),
            _ => None,
        }
    }
}

/// Compressors or inflaters that all connections share; each is used by one connection at a time.
struct Pool<T>(Mutex<Vec<T>>);

impl<T> Pool<T> {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn take(&self, make: impl FnOnce() -> T) -> T {
        let kept = self.0.locked().pop();
        kept.unwrap_or_else(make)
    }

    fn give_back(&self, item: T) {
        let mut kept = self.0.locked();
        if kept.len() < POOL_SIZE {
            kept.push(item);
        }
    }
}

/// Whether there is memory for compressing this, and for a compressor: if not, it is sent as it is.
fn has_room(payload: &[u8]) -> bool {
    scarce::has(COMPRESSOR_SIZE + 2 * payload.len())
}

/// Compresses the payload of a message, without the tail that ends each message (section 7.2.1). `None`: there is no memory for
/// that, and the compressor has taken in what is not sent.
fn compress(compressor: &mut Compress, payload: &[u8]) -> Option<Vec<u8>> {
    let mut compressed = Vec::new();
    grow(&mut compressed, payload.len() / 4 + 64).ok()?;
    let begin = compressor.total_in();
    loop {
        let rest = &payload[(compressor.total_in() - begin) as usize..];
        // Fails only for a stream that was finished, and ours never is.
        let _ = compressor.compress_vec(rest, &mut compressed, FlushCompress::Sync);
        // If there is room left, everything has been written.
        if compressed.len() < compressed.capacity() {
            break;
        }
        let more = compressed.len();
        grow(&mut compressed, more).ok()?;
    }
    if compressed.ends_with(&TAIL) {
        compressed.truncate(compressed.len() - TAIL.len());
    }
    Some(compressed)
}

/// Appends to the history. Bytes older than the window are removed only now and then, so that few bytes are moved.
fn remember(history: &mut Vec<u8>, new: &[u8], window_size: usize) {
    let new = &new[new.len().saturating_sub(window_size)..];
    if history.len() + new.len() > 2 * window_size {
        keep_last(history, window_size - new.len());
    }
    history.extend_from_slice(new);
}

/// Removes all but the last `count` bytes.
fn keep_last(history: &mut Vec<u8>, count: usize) {
    history.drain(..history.len().saturating_sub(count));
}

fn corrupt() -> Failure {
    Failure::protocol("a compressed message cannot be inflated")
}
