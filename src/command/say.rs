//! What is no message goes to standard error.

use std::io::{self, Write};

pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "switchboard: {text}"); // there may be nobody
}
