//! A file as the body of a response.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

/// A part of a file, to be read in pieces. So much is read as its range says, whatever becomes of the file meanwhile.
#[derive(Debug)]
pub(crate) struct FilePart {
    file: File,
    left: Range<u64>,
}

impl FilePart {
    pub(super) fn new(file: File, range: Range<u64>) -> Self {
        Self { file, left: range }
    }

    /// How many bytes are left.
    pub(crate) fn len(&self) -> u64 {
        self.left.end - self.left.start
    }

    /// Reads the next bytes; 0 when there are none left.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file has become shorter: what was announced cannot be sent any more, so the connection has to
    /// end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.len()).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        loop {
            match self.file.read_at(&mut buffer[..most], self.left.start) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.left.start += n as u64;
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_read_as_was_announced_or_it_fails() {
        let path = std::env::temp_dir().join(format!("switchboard-part-{}", std::process::id()));
        std::fs::write(&path, "0123456789").unwrap();
        let part = |range| FilePart::new(File::open(&path).unwrap(), range);
        let (mut some, mut all, mut buffer) = (part(2..7), part(0..10), [0; 4]);
        assert_eq!((some.len(), some.read(&mut buffer).unwrap(), &buffer), (5, 4, b"2345"));
        std::fs::write(&path, "0123456789 and more").unwrap();
        assert_eq!((some.len(), some.read(&mut buffer).unwrap(), buffer[0]), (1, 1, b'6'));
        assert_eq!((some.len(), some.read(&mut buffer).unwrap()), (0, 0));
        assert_eq!(all.read(&mut buffer).unwrap(), 4);
        std::fs::write(&path, "0123").unwrap();
        assert_eq!(all.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        std::fs::remove_file(&path).unwrap();
    }
}
