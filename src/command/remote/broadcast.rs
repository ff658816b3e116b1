//! `broadcast`: messages to many connections.

use clap::Args;
use switchboard::{Audience, Hub, Message, Publication, Recipients, WebSocketId};

use super::{
    after_help,
    audience::Meant,
    failure::Failure,
    input::Input,
    json::{self, Counts},
    output::Output,
    place::Place,
};

#[derive(Debug, Args)]
#[command(after_help = after_help!("  \
  switchboard broadcast 'back in five minutes'
  switchboard broadcast --topic lobby 'it rains'
  switchboard broadcast --user 42 'your order is on its way' || mail-it
  generate-news | switchboard broadcast --path /news --lines"))]
pub(in crate::command) struct Broadcast {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    meant: Meant,
    /// But not to the connection with this ID
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    except: Option<WebSocketId>,
    /// Print a JSON object for each message, as POST /@broadcast and /@topics/TOPIC answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl Broadcast {
    pub(super) fn run(&self) -> Result<(), Failure> {
        self.input.check()?;
        let hub = self.place.hub()?;
        let mut output = Output::new()?;
        let mut is_anybody_there = false;
        let result = self.input.each(|message| {
            let counts = self.send(&hub, message)?;
            is_anybody_there |= counts.is_anybody();
            output.line(&if self.json { json::line(&counts) } else { counts.to_string() })?;
            output.flush()
        });
        match result {
            Ok(()) if !is_anybody_there => Err(Failure::gone("nobody was there")),
            other => other,
        }
    }

    fn send(&self, hub: &Hub, message: Message) -> Result<Counts, Failure> {
        let audience = self.meant.audience();
        if let Audience::Topic(topic) = audience {
            let mut publication = Publication::new(message);
            if let Some(id) = &self.except {
                publication = publication.except(id);
            }
            return Ok((&hub.publish(topic, publication)?).into());
        }
        let to = self.except.as_ref().map_or_else(|| Recipients::from(audience), |id| audience.except(id));
        Ok(hub.broadcast(to, message)?.into())
    }
}
