//! `top`: the connections that are busiest, again and again, on a terminal.

mod draw;
mod keys;
mod rounds;
mod screen;
mod stats;
mod view;

use std::{process, time::Duration};

use clap::Args;
use crossbeam_channel::TryRecvError;

use self::{
    draw::frame,
    keys::Keys,
    rounds::{Asked, Told},
    screen::Screen,
    view::{Done, View},
};
use super::{after_help, audience::Meant, failure::Failure, place::Place};
use crate::command::{codes::DONE, terminal, times::time};

/// How often it looks whether there is something new to show, and whether the terminal has another size.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
#[command(after_help = after_help!("  \
  switchboard top
  switchboard top --topic lobby --interval 5
  ssh -t box switchboard top --manage unix:/run/box.sock

Keys: q quits; s and S sort by the next or the last column, r turns the order round; arrows, Page Up and Down, Home and End move; / takes a text that the ID, user, path, address or agent has to have, and Esc none.

Rates are of the last interval, + and - are connections opened and closed; pushes, memory and the time that it is up are those of the whole server; in a cluster, of the node that is asked, while the connections are those of all nodes. Of an ID, which is a key, only its beginning is shown; switchboard list has all of it."))]
pub(in crate::command) struct Top {
    #[command(flatten)]
    meant: Meant,
    /// Ask so often; a server with many connections is asked less often
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = time, allow_negative_numbers = true)]
    interval: Duration,
    #[command(flatten)]
    place: Place,
}

impl Top {
    pub(super) fn run(&self) -> Result<(), Failure> {
        if !terminal::is_there() {
            return Err(Failure::usage(
                "top needs a terminal for its input and output; for scripts there is: switchboard list --json",
            ));
        }
        screen::watch_stops()?; // before there is a thread
        let hub = self.place.hub()?;
        screen::watch_ends()?;
        std::thread::scope(|scope| {
            let asked = Asked { hub: &hub, place: &self.place, audience: self.meant.audience() };
            let (told, _watching) = rounds::watch(scope, asked, self.interval)?;
            let mut screen = Screen::begin()?;
            let mut view = View::new(self.place.name());
            let mut keys = Keys::new()?;
            loop {
                match told.try_recv() {
                    Ok(Told::Round(round)) => view.show(*round),
                    Ok(Told::Unreachable(text)) => view.miss(text),
                    Ok(Told::Failed(failure)) => return Err(failure),
                    Err(TryRecvError::Disconnected) => {
                        return Err(Failure::other("a part of this has failed"));
                    }
                    Err(TryRecvError::Empty) => {
                        screen.draw(|size| frame(&mut view, size))?;
                        for key in keys.pressed(LOOK)? {
                            if view.press(key) == Done::Yes {
                                drop(screen);
                                process::exit(DONE.into()); // and no answer is waited for any more
                            }
                        }
                    }
                }
            }
        })
    }
}
