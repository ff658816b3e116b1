//! A connection from its opening to its close: messages in and out, until there is a reason to end.

use std::{
    io::{self, ErrorKind::BrokenPipe},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, at, bounded, never, select};
use switchboard::{Client, CloseReason, Message};

use super::{
    args::Connect,
    control::Control,
    input::Input,
    output::Output,
    received::{Received, receive},
    typing::Prompt,
};

/// After an interrupt, what is on its way still has this time without a message, and this time in all.
const LAST_PAUSE: Duration = Duration::from_millis(100);
const LAST_TIME: Duration = Duration::from_secs(1);

/// How it came to an end.
#[derive(Debug)]
pub(super) enum End {
    /// All is done that was to be done.
    Done,
    /// Nobody reads what we write.
    OutputClosed,
    Interrupted,
    /// By the server, or because the connection broke.
    Closed(CloseReason),
    TimedOut,
    Failed(String),
}

/// The two ends that messages come and go by, beside the connection; and where they meet if it is a terminal.
pub(super) struct Ends {
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) prompt: Option<Arc<Prompt>>,
}

/// Talks, and closes. `deadline` is for all of it but the close.
///
/// # Errors
/// If there is no thread for it.
pub(super) fn talk(
    client: Client,
    args: &Connect,
    Ends { input, output, prompt }: Ends,
    deadline: Option<Instant>,
    (tell, controls): (Sender<Control>, Receiver<Control>),
) -> io::Result<End> {
    let client = Arc::new(client);
    let (to, received) = bounded(1);
    let reading = client.clone();
    let reader = spawn("switchboard-read", move || receive(&reading, &to))?;
    output.watch(tell.clone())?;
    let is_typed = input.is_typed();
    let sending = Arc::downgrade(&client);
    spawn("switchboard-send", move || {
        let _ = tell.send(Control::InputEnded(input.send(&sending, prompt.as_ref()))); // nobody listens after the end
    })?;
    let mut talk = Talk {
        goal: Goal::new(args),
        output,
        wait: args.wait,
        is_typed,
        deadline,
        last: None,
        failure: None,
        blocked: Duration::ZERO,
        most_blocked: Duration::ZERO,
    };
    let end = talk.run(&received, &controls);
    client.close(1000, "");
    if matches!(end, End::TimedOut) {
        talk.print_rest(&end, received.try_iter());
        return Ok(end); // no time is left for the server's part of the closing handshake
    }
    talk.print_rest(&end, received.iter());
    let _ = reader.join(); // it does not panic
    if let Some(client) = Arc::into_inner(client) {
        client.finish();
    }
    Ok(talk.failure.map_or(end, End::Failed))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(run)
}

/// What it is for.
#[derive(Debug)]
enum Goal {
    /// To pass messages on.
    Talk,
    /// One message in each direction.
    One { sent: bool, answered: bool },
    /// A message with this in it.
    Expect(Vec<u8>),
}

impl Goal {
    fn new(args: &Connect) -> Self {
        match &args.expect {
            Some(text) => Self::Expect(text.clone().into_bytes()),
            None if args.one => Self::One { sent: false, answered: false },
            None => Self::Talk,
        }
    }
}

struct Talk {
    goal: Goal,
    output: Output,
    /// After the end of the input, the longest time without a message.
    wait: Duration,
    /// Whoever has ended the input sees that nothing more is to come, and wants an end.
    is_typed: bool,
    deadline: Option<Instant>,
    /// It is about to end.
    last: Option<Last>,
    /// Why the input ended before its end.
    failure: Option<String>,
    /// How long it took to write what came without a pause, and the most of that. So long our reader has held the server back, whose
    /// TCP asks more and more seldom whether there is room again: as long again it may be silent before it goes on.
    blocked: Duration,
    most_blocked: Duration,
}

/// When it ends if nothing else happens.
#[derive(Debug)]
struct Last {
    /// The longest time without a message, and when that is up; `None`: never.
    pause: Duration,
    paused: Option<Instant>,
    /// The latest.
    until: Option<Instant>,
    interrupted: bool,
}

impl Last {
    fn after(pause: Duration, most_blocked: Duration) -> Self {
        let paused = Instant::now().checked_add(pause.saturating_add(most_blocked));
        Self { pause, paused, until: None, interrupted: false }
    }
}

impl Talk {
    fn run(&mut self, received: &Receiver<Received>, controls: &Receiver<Control>) -> End {
        loop {
            let (end, due) = self.due();
            if let Some(end) = end {
                return end;
            }
            let timer = due.map_or_else(never, at);
            if received.is_empty() {
                self.blocked = Duration::ZERO;
            }
            let end = select! {
                recv(received) -> received => match received {
                    Ok(received) => self.take(received),
                    Err(_) => Some(End::Failed("the thread that receives is gone".into())),
                },
                recv(controls) -> control => control.ok().and_then(|control| self.heed(control)),
                recv(timer) -> _ => None,
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// What the time has brought about, or when it is to be looked at again.
    fn due(&self) -> (Option<End>, Option<Instant>) {
        let now = Instant::now();
        let is_over = |moment: Option<Instant>| moment.is_some_and(|moment| moment <= now);
        if is_over(self.deadline) {
            return (Some(End::TimedOut), None);
        }
        let Some(last) = &self.last else { return (None, self.deadline) };
        if is_over(last.paused) || is_over(last.until) {
            return (Some(if last.interrupted { End::Interrupted } else { End::Done }), None);
        }
        (None, [self.deadline, last.paused, last.until].into_iter().flatten().min())
    }

    fn take(&mut self, received: Received) -> Option<End> {
        let messages = match received {
            Received::Messages(messages) => messages,
            Received::Ended(reason) => return Some(End::Closed(reason)),
            Received::Failed(e) => return Some(End::Failed(e.to_string())),
        };
        let is_met = messages.iter().any(|message| self.take_message(message));
        let begun = Instant::now();
        let end = self.flush().or(is_met.then_some(End::Done));
        self.blocked += begun.elapsed();
        self.most_blocked = self.most_blocked.max(self.blocked);
        if let Some(last) = &mut self.last {
            last.paused = Instant::now().checked_add(last.pause.saturating_add(self.most_blocked));
        }
        end
    }

    /// Whether this was all.
    fn take_message(&mut self, message: &Message) -> bool {
        match &mut self.goal {
            Goal::Talk => self.output.put(message),
            Goal::Expect(text) => {
                self.output.put(message);
                return contains(message.as_bytes(), text);
            }
            Goal::One { answered: true, .. } => {}
            Goal::One { sent, answered } => {
                *answered = true;
                self.output.put(message);
                return *sent;
            }
        }
        false
    }

    fn flush(&mut self) -> Option<End> {
        match self.output.flush() {
            Err(e) if e.kind() == BrokenPipe => self.heed(Control::OutputClosed),
            Err(e) => Some(End::Failed(format!("cannot write to standard output: {e}"))),
            Ok(()) => None,
        }
    }

    fn heed(&mut self, control: Control) -> Option<End> {
        match (control, &mut self.goal) {
            (Control::InputEnded(result), Goal::Talk) => {
                self.failure = result.err(); // what was sent before it still has its answers
                let until = if self.is_typed { Instant::now().checked_add(self.wait) } else { None };
                self.last.get_or_insert_with(|| Last { until, ..Last::after(self.wait, self.most_blocked) });
                None
            }
            (Control::InputEnded(Err(e)), _) => Some(End::Failed(e)),
            (Control::InputEnded(Ok(())), Goal::One { sent, answered }) => {
                *sent = true;
                answered.then_some(End::Done)
            }
            (Control::Interrupted, Goal::Talk) => {
                let until = Instant::now().checked_add(LAST_TIME);
                self.last =
                    Some(Last { until, interrupted: true, ..Last::after(LAST_PAUSE, Duration::ZERO) });
                None
            }
            (Control::Interrupted, _) => Some(End::Interrupted),
            (Control::InputEnded(Ok(())), Goal::Expect(_)) => None,
            (Control::OutputClosed, Goal::Talk) => Some(End::OutputClosed),
            (Control::OutputClosed, _) => None, // the exit code tells without a reader, too
        }
    }

    /// What had come before the close.
    fn print_rest(&mut self, end: &End, received: impl Iterator<Item = Received>) {
        let mut is_wanted = matches!(self.goal, Goal::Talk) && !matches!(end, End::OutputClosed);
        for received in received {
            if let Received::Messages(messages) = received
                && is_wanted
            {
                messages.iter().for_each(|message| self.output.put(message));
                is_wanted = self.output.flush().is_ok();
            }
        }
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_a_message() {
        for (bytes, text, found) in [
            ("", "", true),
            ("x", "", true),
            ("", "x", false),
            ("a pong!", "pong", true),
            ("pon", "pong", false),
        ] {
            assert_eq!(contains(bytes.as_bytes(), text.as_bytes()), found, "{bytes:?} {text:?}");
        }
    }
}
