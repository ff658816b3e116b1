//! Standard input, and what is given as hexadecimal bytes in its place.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::fd::AsFd,
};

use rustix::event::{PollFd, PollFlags, poll};
use switchboard::Message;

/// Standard input, which may be non-blocking, if another process that has it wants it so.
pub(super) struct Stdin(File);

impl Stdin {
    pub(super) fn new() -> io::Result<Self> {
        io::stdin().as_fd().try_clone_to_owned().map(|fd| Self(fd.into()))
    }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None)?;
                }
                other => return other,
            }
        }
    }
}

/// A binary message, as it is typed or given.
pub(super) fn hex(text: &str) -> Result<Message, String> {
    let digits: String = text.split_whitespace().collect();
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes());
    bytes.map(Message::from).map_err(|_| "--binary takes hexadecimal bytes here, such as 00 ff 1b".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_bytes() {
        for (text, bytes) in [("", &[][..]), ("00ff", &[0, 255]), (" 0A 1b\t0c ", &[10, 27, 12])] {
            assert_eq!(hex(text), Ok(Message::from(bytes)), "{text}");
        }
        for bad in ["0", "0x00", "g0", "ä"] {
            assert!(hex(bad).is_err(), "{bad}");
        }
    }
}
