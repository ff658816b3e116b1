//! What nodes send each other: a head that says from whom it comes and what it is, and behind it what it brings.

use serde::{Deserialize, Serialize};

use crate::wire::{Malformed, put, take};

/// The version of what follows. A node passes over what has another one.
const VERSION: u8 = 1;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Sender {
    pub(super) node: u32,
    /// Which of its starts.
    pub(super) start: u64,
}

/// What a message of the cluster begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) from: Sender,
    /// The sender's connections to Redis are numbered. What comes by an earlier one than the last is out of its order, and was reported
    /// as unreachable: it is not done any more.
    pub(super) way: u32,
    pub(super) kind: Kind,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// Requests that are not answered: pushes and broadcasts.
    Tell,
    /// A node wants to ask this one, by a line of this number; with a [`Hello`](crate::wire::Hello).
    Hello {
        line: u32,
    },
    /// The answer, with another hello. What is asked names the talk.
    Welcome {
        line: u32,
        talk: u64,
    },
    /// Requests.
    Ask {
        line: u32,
        talk: u64,
    },
    /// Their answers.
    Answer {
        line: u32,
    },
    /// There is no such talk any more: what was asked by this line will not be answered.
    Over {
        line: u32,
    },
    /// The line is not needed any more.
    Bye {
        line: u32,
    },
    /// A request to all who get this.
    Query {
        number: u64,
    },
    /// The answer of one of them.
    Reply {
        number: u64,
    },
    /// What was sent to the sender lately may be lost: it has no talk any more, and no line.
    Lost,
    /// A node has come, or has left.
    Here,
    Left,
    /// From a node to itself: that all is well, or that there is something to do.
    Beat,
    /// A publication to a topic that remembers, behind the line that says where it stands; with a number of the publisher's. It is
    /// done whenever it comes: Redis has given it its place.
    Published {
        number: u64,
    },
}

impl Head {
    /// A message with this head, and what follows it.
    pub(super) fn message(&self, body: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(body.len() + 32);
        message.push(VERSION);
        put(&mut message, self);
        message.extend_from_slice(body);
        message
    }

    /// The head of a message, and where its body begins. `None`: it is of another version.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn of(message: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        match message {
            [VERSION, rest @ ..] => {
                let (head, body) = take(rest)?;
                Ok(Some((head, message.len() - body.len())))
            }
            [] => Err(Malformed("an empty message")),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_and_what_is_cut_does_not() {
        let from = Sender { node: 7, start: u64::MAX };
        for kind in [Kind::Tell, Kind::Ask { line: 3, talk: 9 }, Kind::Query { number: 1 << 40 }, Kind::Beat]
        {
            let head = Head { from, way: 2, kind };
            let message = head.message(b"body");
            let (same, at) = Head::of(&message).unwrap().unwrap();
            assert_eq!((same, &message[at..]), (head, &b"body"[..]));
            let bare = head.message(b"");
            for end in 0..bare.len() {
                assert!(Head::of(&bare[..end]).is_err(), "{end}");
            }
        }
        assert_eq!(Head::of(&[2, 0, 0]), Ok(None), "a newer version");
    }
}
