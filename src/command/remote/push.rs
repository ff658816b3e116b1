//! `push`: messages to one connection.

use std::time::Duration;

use clap::Args;
use switchboard::{Hub, Message, Pushed, WebSocketId};

use super::{after_help, failure::Failure, input::Input, json, output::Output, place::Place};
use crate::command::times::time;

#[derive(Debug, Args)]
#[command(after_help = after_help!("  \
  switchboard push b3kT9ZcYw4mQ1s8xAAAAKg 'it rains'
  echo '{\"level\": 7}' | switchboard push b3kT9ZcYw4mQ1s8xAAAAKg -
  tail -f box.log | switchboard push b3kT9ZcYw4mQ1s8xAAAAKg --lines --wait 60
  switchboard push b3kT9ZcYw4mQ1s8xAAAAKg --binary - < picture.png"))]
pub(in crate::command) struct Push {
    /// The connection's ID
    #[arg(allow_hyphen_values = true)]
    id: WebSocketId,
    #[command(flatten)]
    input: Input,
    /// Wait until the message is sent, up to this time [default: it is sent, or queued for a client that is slow, or forwarded to the
    /// node of a cluster that has the connection]
    #[arg(long, value_name = "SECONDS", value_parser = time, allow_negative_numbers = true)]
    wait: Option<Duration>,
    /// Print a JSON object for each message, as POST /@connections/ID answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// How many had which result.
#[derive(Default)]
struct Counts {
    sent: usize,
    queued: usize,
    forwarded: usize,
}

impl Push {
    pub(super) fn run(&self) -> Result<(), Failure> {
        self.input.check()?;
        let hub = self.place.hub()?;
        let mut output = Output::new()?;
        let mut counts = Counts::default();
        let result = self.input.each(|message| {
            let pushed = self.push(&hub, message)?;
            *match pushed {
                Pushed::Sent => &mut counts.sent,
                Pushed::Forwarded => &mut counts.forwarded,
                _ => &mut counts.queued,
            } += 1;
            if self.json {
                output.line(&json::line(&json::Push::from(pushed)))?;
                output.flush()?;
            } else if !self.input.is_many() {
                output.line(json::name(pushed))?;
            }
            Ok(())
        });
        let printed = self.print_counts(&mut output, &counts);
        result.and(printed) // that nobody reads is no news beside a push that failed
    }

    fn print_counts(&self, output: &mut Output, counts: &Counts) -> Result<(), Failure> {
        if self.input.is_many() && !self.json {
            let Counts { sent, queued, forwarded } = counts;
            let forwarded = if *forwarded > 0 { format!(", {forwarded} forwarded") } else { String::new() };
            output.line(&format!("{sent} sent, {queued} queued{forwarded}"))?;
        }
        output.flush()
    }

    fn push(&self, hub: &Hub, message: Message) -> Result<Pushed, Failure> {
        match self.wait {
            None => Ok(hub.push(&self.id, message)?),
            Some(time) => Ok(hub.push_wait(&self.id, message, time).map(|()| Pushed::Sent)?),
        }
    }
}
