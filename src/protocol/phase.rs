//! How far the life of a connection has come.

use crate::{
    clock::Moment,
    codec::Failure,
    error::CloseReason,
    message::{CloseCode, Text},
};

/// The phases of a connection, in the order in which they come. Some may be left out, and there is no way back.
#[derive(Debug)]
pub(super) enum Phase {
    /// Messages go both ways.
    Open,
    /// The peer has ended the connection, but messages that it sent before are not answered yet: they still can be. Then,
    /// or when the time is up, the end takes effect. Its stream may have ended, too (`peer_ended`).
    Held { end: Box<PeerEnd>, peer_ended: bool, by: Moment },
    /// Nothing can be sent any more, but what the peer sent before may still be received, a close frame too.
    Unsendable { reason: CloseReason, by: Moment },
    /// Our close frame is out; the peer's is awaited (RFC 6455, section 7.1.2).
    Closing { by: Moment },
    /// Nothing is left to say. When the output is sent, a server ends its stream (FIN), and what still arrives is thrown
    /// away until the peer ends its own: a socket closed with unread input would reset the connection, and the peer might
    /// never read our close frame. A client waits for the server's end first (section 7.1.1).
    Draining { by: Moment, peer_ended: bool, stream: Stream },
    /// Nothing comes, and nothing can be sent.
    Over,
}

/// How the peer ended the connection.
#[derive(Debug)]
pub(super) enum PeerEnd {
    /// With a close frame.
    Close(CloseCode, Text),
    /// It broke a rule.
    Failure(Failure),
    /// Its stream ended without a close frame.
    EndOfStream,
}

/// Our half of the stream, while the connection drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Open,
    /// TLS has said that nothing more comes (close_notify), which is to be sent like the rest.
    Finished,
    /// FIN is sent.
    Ended,
}

/// What an end that the peer brings about has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// For nothing: all that came before is answered.
    Nothing,
    /// For the application, which may still answer messages that came before.
    Answers,
}
