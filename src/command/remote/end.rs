//! `end`: the closing handshake of a connection.

use clap::Args;
use switchboard::{CloseCode, WebSocketId};

use super::{after_help, failure::Failure, place::Place};

/// What a close frame has room for.
const MAX_REASON: usize = 123;

#[derive(Debug, Args)]
#[command(after_help = after_help!("  \
  switchboard end b3kT9ZcYw4mQ1s8xAAAAKg
  switchboard end b3kT9ZcYw4mQ1s8xAAAAKg --code 4001 --reason 'log in again'"))]
pub(in crate::command) struct End {
    /// The connection's ID
    #[arg(allow_hyphen_values = true)]
    id: WebSocketId,
    /// The close code: 1000 to 1003, 1007 to 1014, or 3000 to 4999
    #[arg(long, value_name = "CODE", default_value = "1000", value_parser = code)]
    code: CloseCode,
    /// The text of the close frame, up to 123 bytes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = reason)]
    reason: String,
    #[command(flatten)]
    place: Place,
}

impl End {
    /// Says nothing if all is well.
    pub(super) fn run(&self) -> Result<(), Failure> {
        Ok(self.place.hub()?.close(&self.id, self.code, &self.reason)?)
    }
}

fn code(text: &str) -> Result<CloseCode, String> {
    let code = text.parse().ok().map(CloseCode).filter(|code| code.is_sendable());
    code.ok_or_else(|| "must be 1000 to 1003, 1007 to 1014, or 3000 to 4999".into())
}

fn reason(text: &str) -> Result<String, String> {
    if text.len() <= MAX_REASON { Ok(text.into()) } else { Err(format!("has more than {MAX_REASON} bytes")) }
}
