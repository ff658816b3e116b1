//! Compressed messages (permessage-deflate, RFC 7692, section 7.2).
//!
//! What inflates is taken from a pool for as long as a message takes to arrive, and is told then what the client's
//! earlier messages were: so between messages a connection keeps those bytes, and nothing else.

use std::{cell::OnceCell, sync::Mutex};

use bytes::Bytes;
use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Failure, partial::Partial};
use crate::{compression::Deflate, message::Message, sync::LockExt};

/// What a sender takes off the end of a message, and a receiver puts back (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// An empty block that says it is the last one (RFC 1951, section 3.2.4).
const LAST_BLOCK: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// Inflated at a time.
const CHUNK: usize = 16 * 1024;

/// A message of so many bytes is not compressed while others wait: it may take a third of a millisecond and more.
const LONG: usize = 16 * 1024;

/// A pool keeps so many: more are not in use at once for long, as each use is a short one.
const POOL: usize = 4;

static INFLATERS: Pool<Inflater> = Pool::new();

/// By window bits, from 9 to 15.
static COMPRESSORS: [Pool<Compress>; 7] = [const { Pool::new() }; 7];

/// What may be used by any connection, but by one at a time.
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
        if kept.len() < POOL {
            kept.push(item);
        }
    }
}

/// A message on its way out; in its compressed form, if that was made already.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) message: Message,
    pub(super) deflated: Option<Bytes>,
}

impl From<Message> for Outgoing {
    fn from(message: Message) -> Self {
        Self { message, deflated: None }
    }
}

/// A message on its way through a connection's own compressor, which is away from the connection meanwhile.
#[derive(Debug)]
pub(crate) struct Compressing {
    compress: Box<Compress>,
    outgoing: Outgoing,
}

impl Compressing {
    /// Compresses it. This takes long: some 20 ms for 1 MiB.
    pub(crate) fn run(&mut self) {
        self.outgoing.deflated = Some(deflate(&mut self.compress, self.outgoing.message.as_bytes()).into());
    }
}

/// The compressed forms of one message, by window bits from 9 on: a broadcast is compressed once for each.
#[derive(Debug, Default)]
pub(crate) struct Forms([OnceCell<Option<Bytes>>; COMPRESSORS.len()]);

impl Deflate {
    /// Compresses a message that needs nothing of the connection for that, unless it has fewer than `least` bytes; or takes
    /// the form that was made before.
    pub(crate) fn prepare(&self, message: Message, least: usize, forms: Option<&Forms>) -> Outgoing {
        if !self.pooled || !is_worth_it(&message, least) {
            return message.into();
        }
        let make = || self.deflate_alone(message.as_bytes());
        let deflated = match forms {
            Some(forms) => forms.0[self.index()].get_or_init(make).clone(),
            None => make(),
        };
        Outgoing { message, deflated }
    }

    /// `None` if it would not become smaller.
    fn deflate_alone(&self, payload: &[u8]) -> Option<Bytes> {
        let pool = &COMPRESSORS[self.index()];
        let mut compress = pool.take(|| self.compressor());
        // Those who share it may have different levels. It has nothing to flush, so this cannot fail.
        let _ = compress.set_level(Level::new(self.level.into()));
        let deflated = deflate(&mut compress, payload);
        compress.reset();
        pool.give_back(compress);
        (deflated.len() < payload.len()).then(|| deflated.into())
    }

    fn index(&self) -> usize {
        usize::from(self.server_window_bits).saturating_sub(9).min(COMPRESSORS.len() - 1)
    }

    fn compressor(&self) -> Compress {
        Compress::new_with_window_bits(Level::new(self.level.into()), false, self.server_window_bits)
    }

    /// What a message of `size` bytes may have on the wire: compressing what cannot be compressed adds something, with
    /// little memory for it more than zlib's usual. What it inflates to is counted in any case.
    pub(super) fn bound(size: u64) -> u64 {
        size.saturating_add(size / 8).saturating_add(64)
    }
}

fn is_worth_it(message: &Message, least: usize) -> bool {
    message.len() >= least.max(1)
}

/// One connection's side of compression, both ways.
#[derive(Debug)]
pub(super) struct Deflater {
    agreed: Deflate,
    least: usize,
    /// Made at the first need, and given back when it was not needed for a while. Ours may forget what was before at
    /// any time: it is the client that has to remember.
    compress: Option<Box<Compress>>,
    /// The end of what the client's messages were, as far as later ones may refer to it.
    history: Vec<u8>,
    /// While a message arrives.
    inflater: Option<Inflater>,
}

#[derive(Debug)]
struct Inflater {
    raw: Decompress,
    chunk: Box<[u8]>,
}

impl Inflater {
    fn new() -> Self {
        Self { raw: Decompress::new(false), chunk: vec![0; CHUNK].into() }
    }

    /// Whether a block can begin here. Where none can, a message was cut off; it has to be restarted afterwards in any case.
    fn is_between_blocks(&mut self) -> bool {
        let before = (self.raw.total_in(), self.raw.total_out());
        let status = self.raw.decompress(&LAST_BLOCK, &mut self.chunk, FlushDecompress::Sync);
        let after = (before.0 + LAST_BLOCK.len() as u64, before.1);
        matches!(status, Ok(Status::StreamEnd)) && (self.raw.total_in(), self.raw.total_out()) == after
    }

    /// Makes it ready for what refers to `history`.
    fn restart(&mut self, history: &[u8]) -> Result<(), Failure> {
        self.raw.reset(false);
        if !history.is_empty() {
            self.raw.set_dictionary(history).map_err(|_| corrupt())?;
        }
        Ok(())
    }
}

impl Deflater {
    pub(super) fn new(agreed: Deflate, least: usize) -> Self {
        Self { agreed, least, compress: None, history: Vec::new(), inflater: None }
    }

    /// Compresses a message with the help of those before it, unless it is to go as it is.
    pub(super) fn deflate(&mut self, outgoing: &mut Outgoing) {
        if self.deflates(&outgoing.message) {
            let compress = self.compress.get_or_insert_with(|| Box::new(self.agreed.compressor()));
            outgoing.deflated = Some(deflate(compress, outgoing.message.as_bytes()).into());
        }
    }

    /// Those of the pool have been used before.
    fn deflates(&self, message: &Message) -> bool {
        !self.agreed.pooled && is_worth_it(message, self.least)
    }

    /// Whether to compress this would keep others waiting.
    pub(super) fn takes_long(&self, outgoing: &Outgoing) -> bool {
        outgoing.message.len() >= LONG && self.deflates(&outgoing.message)
    }

    /// Lends the compressor for this message.
    pub(super) fn lend(&mut self, outgoing: Outgoing) -> Compressing {
        let compress = self.compress.take().unwrap_or_else(|| Box::new(self.agreed.compressor()));
        Compressing { compress, outgoing }
    }

    pub(super) fn take_back(&mut self, compressed: Compressing) -> Outgoing {
        self.compress = Some(compressed.compress);
        compressed.outgoing
    }

    /// Whether [`park`](Self::park) would give something back.
    pub(super) fn is_warm(&self) -> bool {
        self.compress.is_some() || self.history.len() > 1 << self.agreed.client_window_bits
    }

    /// Inflates a piece of a message onto it, up to `most` bytes in all. `is_last`: the message ends with this piece.
    #[inline(never)] // most connections never get here, and it would take stack of all of them
    pub(super) fn inflate(
        &mut self,
        piece: &[u8],
        is_last: bool,
        message: &mut Partial,
        most: u64,
    ) -> Result<(), Failure> {
        let mut inflater = match self.inflater.take() {
            Some(inflater) => inflater,
            None => {
                let mut inflater = INFLATERS.take(Inflater::new);
                inflater.restart(self.window())?;
                inflater
            }
        };
        self.inflate_piece(&mut inflater, piece, message, most)?;
        if !is_last {
            self.inflater = Some(inflater);
            return Ok(());
        }
        // Some send nothing at all for an empty message, or after a block that said it was the last one.
        if inflater.raw.total_in() > 0 {
            self.inflate_piece(&mut inflater, &TAIL, message, most)?;
            if !inflater.is_between_blocks() {
                return Err(corrupt());
            }
        }
        INFLATERS.give_back(inflater);
        Ok(())
    }

    fn inflate_piece(
        &mut self,
        inflater: &mut Inflater,
        mut piece: &[u8],
        message: &mut Partial,
        most: u64,
    ) -> Result<(), Failure> {
        loop {
            let (read, written) = (inflater.raw.total_in(), inflater.raw.total_out());
            let status = inflater
                .raw
                .decompress(piece, &mut inflater.chunk, FlushDecompress::Sync)
                .map_err(|_| corrupt())?;
            let read = (inflater.raw.total_in() - read) as usize;
            let written = (inflater.raw.total_out() - written) as usize;
            let inflated = &inflater.chunk[..written];
            piece = &piece[read..];
            if (message.len() + written) as u64 > most {
                return Err(Failure::too_big(format!("message of more than {most} bytes")));
            }
            message.push(inflated)?;
            if !self.agreed.client_no_context_takeover {
                remember(&mut self.history, inflated, 1 << self.agreed.client_window_bits);
            }
            match status {
                // A block may say that it is the last one (section 7.2.3.4); what follows is another stream.
                Status::StreamEnd => inflater.restart(self.window())?,
                _ if written == inflater.chunk.len() => continue,
                _ if read == 0 && written == 0 && !piece.is_empty() => return Err(corrupt()),
                _ => {}
            }
            if piece.is_empty() {
                return Ok(());
            }
        }
    }

    /// What of the history can be referred to: no more, or it would depend on how the bytes arrived what is refused.
    fn window(&self) -> &[u8] {
        let window = 1 << self.agreed.client_window_bits;
        &self.history[self.history.len().saturating_sub(window)..]
    }

    /// Gives back what only speed or size suffer from.
    pub(super) fn park(&mut self) {
        self.compress = None;
        forget(&mut self.history, 1 << self.agreed.client_window_bits);
        self.history.shrink_to_fit();
    }
}

/// Compresses the payload of a message, and takes off its end what every one ends with (section 7.2.1).
fn deflate(compress: &mut Compress, payload: &[u8]) -> Vec<u8> {
    let mut deflated = Vec::with_capacity(payload.len() / 4 + 64);
    let begin = compress.total_in();
    loop {
        let rest = &payload[(compress.total_in() - begin) as usize..];
        // It fails only on a compressor that was finished, which none of ours is.
        let _ = compress.compress_vec(rest, &mut deflated, FlushCompress::Sync);
        // With room left, all is out.
        if deflated.len() < deflated.capacity() {
            break;
        }
        deflated.reserve(deflated.len());
    }
    if deflated.ends_with(&TAIL) {
        deflated.truncate(deflated.len() - TAIL.len());
    }
    deflated
}

/// Appends, and forgets now and then what is too long ago.
fn remember(history: &mut Vec<u8>, new: &[u8], window: usize) {
    let new = &new[new.len().saturating_sub(window)..];
    if history.len() + new.len() > 2 * window {
        forget(history, window - new.len());
    }
    history.extend_from_slice(new);
}

/// Keeps so many bytes at the end.
fn forget(history: &mut Vec<u8>, keep: usize) {
    history.drain(..history.len().saturating_sub(keep));
}

fn corrupt() -> Failure {
    Failure::protocol("a compressed message cannot be inflated")
}
