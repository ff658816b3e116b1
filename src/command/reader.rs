//! Whoever reads our output may go.

use std::{fs::File, io, os::unix::fs::FileTypeExt, thread};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

/// Calls this when nobody reads any more what is written there, also while there is nothing to write.
pub(super) fn watch(sink: File, gone: impl FnOnce() + Send + 'static) -> io::Result<()> {
    if !sink.metadata()?.file_type().is_fifo() {
        return Ok(()); // a file is there always, and a terminal's end is a SIGHUP
    }
    thread::Builder::new().name("switchboard-out".into()).spawn(move || {
        // No flag: only errors are told, such as that there is no reader.
        while let Ok(0) | Err(Errno::INTR) = poll(&mut [PollFd::new(&sink, PollFlags::empty())], None) {}
        gone();
    })?;
    Ok(())
}
