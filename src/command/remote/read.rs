//! `read`: what a shared connection has received, at least once.

use std::time::Duration;

use clap::Args;
use switchboard::{Error, WebSocket, WebSocketId};

use super::{
    after_help,
    failure::{Failure, closed},
    json,
    output::Output,
    place::Place,
};
use crate::command::{form::Form, say::say, times::time};

#[derive(Debug, Args)]
#[command(after_help = after_help!("  \
  switchboard read b3kT9ZcYw4mQ1s8xAAAAKg            a line each, until the end
  answer=$(switchboard read b3kT9ZcYw4mQ1s8xAAAAKg --one --timeout 30)
  switchboard read b3kT9ZcYw4mQ1s8xAAAAKg --json | jq -r .text

A message is acknowledged when it was written to standard output: if this ends before, however that is, the message goes back, and whoever reads next gets it, marked as redelivered. When the connection ends in order, so does this, with exit code 0; else, and with --one in any case, with 4."))]
pub(in crate::command) struct Read {
    /// The connection's ID
    #[arg(allow_hyphen_values = true)]
    id: WebSocketId,
    /// Print one message, and end
    #[arg(long, short = '1')]
    one: bool,
    /// End with exit code 5 when no message has come for so long [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = time, allow_negative_numbers = true)]
    timeout: Option<Duration>,
    /// Write messages to a pipe or a file as they are, with nothing between them; else each is a line, a binary one in hexadecimal
    #[arg(long, short)]
    binary: bool,
    /// Messages end with a NUL character instead of a newline
    #[arg(long, short = '0', conflicts_with = "binary")]
    null: bool,
    /// Print a JSON object for each: type (text or binary), text or base64, redelivered
    #[arg(long, conflicts_with_all = ["binary", "null"])]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl Read {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let hub = self.place.hub()?;
        let mut output = Output::new()?;
        output.end_without_reader()?;
        let ws = hub.open_server(&self.id)?;
        let result = self.print_all(&ws, &mut output);
        drop(ws);
        let _ = hub.len(); // its answer comes when all acknowledgements have
        result
    }

    fn print_all(&self, ws: &WebSocket, output: &mut Output) -> Result<(), Failure> {
        let form = Form::for_stdout(self.binary, if self.null { 0 } else { b'\n' }, false);
        loop {
            let delivery = match ws.read_delivery(usize::MAX, self.timeout.unwrap_or(Duration::MAX)) {
                Ok(delivery) => delivery,
                Err(Error::Closed(reason)) if reason.is_normal() && !self.one => {
                    say(&Failure::gone(closed(&reason)).text.unwrap_or_default());
                    return Ok(());
                }
                Err(Error::Timeout) => return Err(Failure::timed_out("timed out: no message has come")),
                Err(other) => return Err(other.into()),
            };
            if self.json {
                output.line(&json::line(&json::Read::new(&delivery, delivery.redelivered())))?;
            } else {
                form.append(&delivery, output.pending());
            }
            output.flush()?;
            delivery.ack();
            if self.one {
                return Ok(());
            }
        }
    }
}
