//! The codec for `benches/codec.rs`. Not part of the API.

use crate::{
    codec::{Codec, Deflate, Event, Role, Stream, Work, apply_mask},
    compression::Compression,
    limits::Limits,
    message::Message,
};

/// One connection's codec, over memory.
#[derive(Debug)]
pub struct Bench {
    codec: Codec,
    limits: Limits,
    deflate: Option<Deflate>,
    buffer: Vec<u8>,
}

impl Bench {
    /// Without compression and without TLS.
    pub fn plain() -> Self {
        Self::new(Stream::plain(), Compression::Off)
    }

    /// With permessage-deflate, as browsers offer it.
    pub fn compressed(compression: Compression) -> Self {
        Self::new(Stream::plain(), compression)
    }

    /// Within TLS. The client's handshake goes through [`receive`](Self::receive) and [`sent`](Self::sent).
    #[cfg(feature = "__tls")]
    pub fn tls(identity: &crate::TlsIdentity) -> Self {
        let identity = identity.current();
        let acceptor = identity.acceptor().expect("an identity that was checked");
        Self::new(Stream::tls(acceptor).expect("a TLS stream"), Compression::Off)
    }

    fn new(stream: Stream, compression: Compression) -> Self {
        let deflate = compression.negotiate(["permessage-deflate"]).map(|(deflate, _)| deflate);
        let limits = Limits::default();
        Self {
            codec: Codec::new(Role::Server, stream, &limits, deflate),
            limits,
            deflate,
            buffer: Vec::new(),
        }
    }

    /// Takes bytes from the client. Returns how many messages they completed.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        self.buffer.extend_from_slice(bytes);
        self.codec.stream().feed(&mut self.buffer).expect("no broken rule");
        let (mut messages, mut short) = (0, Vec::new());
        while let Some(event) = self.codec.next(&mut Work::of(usize::MAX)).expect("no broken rule") {
            messages += usize::from(matches!(event, Event::Message(_)));
            self.codec.take_short(&mut short, 15);
            messages += short.drain(..).len();
        }
        self.buffer = self.codec.stream().spare_buffer();
        messages
    }

    /// Appends a message to the output.
    pub fn send(&mut self, message: Message) {
        let min_size = self.limits.min_compressed_size;
        let outgoing = match &self.deflate {
            Some(deflate) => deflate.prepare(message, min_size, None),
            None => message.into(),
        };
        self.codec.encode_now(outgoing);
    }

    /// Hands the output to `take`, in one or two parts. Returns its size in bytes.
    pub fn sent(&mut self, mut take: impl FnMut(&[u8])) -> usize {
        let stream = self.codec.stream();
        stream.seal().expect("no broken rule");
        let parts = stream.pending_parts();
        parts.iter().for_each(|part| take(part));
        let sent = parts.iter().map(|part| part.len()).sum();
        stream.mark_sent(sent);
        sent
    }
}

/// Takes the mask off a payload.
pub fn remove_mask(bytes: &mut [u8], mask: [u8; 4]) {
    apply_mask(bytes, mask);
}
