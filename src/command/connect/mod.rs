//! `switchboard connect`: a client for people at a terminal, for pipes, and for health checks. It reads and writes on threads of its
//! own; this one waits for whatever happens first.

mod args;
mod control;
mod failure;
mod input;
mod output;
mod received;
mod talk;
mod typing;

use std::{
    error::Error,
    io::{self, IsTerminal},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Instant,
};

use crossbeam_channel::bounded;
use switchboard::{Client, ClientBuilder, CloseReason};

pub(super) use self::args::Connect;
use self::{
    control::{exit_after, watch_signals, watch_stops},
    input::Input,
    output::Output,
    talk::{End, Ends, talk},
};
use super::{
    codes::{DONE, ENDED, INTERRUPTED, NO_CONNECTION, TIMED_OUT, USAGE},
    escaped::escaped,
    say::say,
};

/// Of what can happen, so much waits until it is heeded: each happens once.
const CONTROLS: usize = 8;

/// Connects, talks, and says how it ended: the exit codes are in the help.
pub(super) fn run(args: &Connect) -> ExitCode {
    let prepared = builder(args).and_then(|builder| Ok((builder, Input::new(args)?)));
    let code = match prepared {
        Ok((builder, input)) => connect(args, &builder, input).unwrap_or_else(|e| {
            say(&e.to_string());
            NO_CONNECTION
        }),
        Err(e) => misused(&e),
    };
    code.into()
}

fn builder(args: &Connect) -> Result<ClientBuilder, String> {
    let builder = args.client();
    #[cfg(feature = "__tls")]
    let builder = builder.tls(args.tls.trust().map_err(|e| e.to_string())?);
    Ok(builder)
}

fn connect(args: &Connect, builder: &ClientBuilder, input: Input) -> Result<u8, Box<dyn Error>> {
    let prompt = input.prompt()?;
    prompt.as_ref().map(watch_stops).transpose()?;
    let deadline = args.time().and_then(|time| Instant::now().checked_add(time));
    if let Some(time) = args.time() {
        exit_after(time, TIMED_OUT);
    }
    let is_connected = Arc::new(AtomicBool::new(false));
    let (tell, controls) = bounded(CONTROLS);
    watch_signals(tell.clone(), is_connected.clone())?;
    let output = Output::new(args, prompt.clone())?;
    let client = match builder.connect() {
        Ok(client) => client,
        Err(e) => {
            let code = failure::code(&e);
            return Ok(if code == USAGE {
                misused(&e.to_string())
            } else {
                say(&failure::told(&e));
                code
            });
        }
    };
    is_connected.store(true, SeqCst);
    let begun = prompt.as_ref().map(|prompt| prompt.begin()).transpose()?;
    if is_watched() {
        say(&greeting(&client));
    }
    let ends = Ends { input, output, prompt: prompt.clone() };
    let end = talk(client, args, ends, deadline, (tell, controls))?;
    drop(begun);
    Ok(conclude(args, &end))
}

/// Says how it ended, if somebody may want to know, and returns the exit code.
fn conclude(args: &Connect, end: &End) -> u8 {
    let awaits = args.one || args.expect.is_some();
    let (code, text) = match end {
        End::Done | End::OutputClosed => (DONE, None),
        End::Interrupted => (if awaits { INTERRUPTED } else { DONE }, None),
        End::Closed(reason) if awaits => {
            (ENDED, Some(format!("{}, before {}", closed(reason), missing(args))))
        }
        End::Closed(reason) => (if reason.is_normal() { DONE } else { ENDED }, Some(closed(reason))),
        End::TimedOut if awaits => (TIMED_OUT, Some(format!("timed out before {}", missing(args)))),
        End::TimedOut => (TIMED_OUT, Some("timed out".into())),
        End::Failed(text) => (NO_CONNECTION, Some(text.clone())),
    };
    match text {
        Some(text) => say(&text),
        None if is_watched() => say("closed: 1000 by the client"),
        None => {}
    }
    code
}

fn closed(reason: &CloseReason) -> String {
    format!("closed: {}", escaped(&reason.to_string()))
}

fn missing(args: &Connect) -> String {
    match &args.expect {
        Some(text) => format!("a message with {text:?} came"),
        None => "there was an answer".into(),
    }
}

/// What somebody at a terminal wants to know at first.
fn greeting(client: &Client) -> String {
    let mut text = "connected".to_owned();
    if let Some(peer) = client.peer() {
        text += &format!(" to {peer}");
    }
    if let Some(subprotocol) = client.subprotocol() {
        text += &format!(", subprotocol {}", escaped(subprotocol));
    }
    if client.is_compressed() {
        text += ", compressed";
    }
    text + "; Ctrl-D or Ctrl-C closes"
}

/// Whether somebody sits at it.
fn is_watched() -> bool {
    io::stderr().is_terminal() && io::stdin().is_terminal()
}

fn misused(text: &str) -> u8 {
    say(&format!("{}\n\nFor more information, try 'switchboard connect --help'.", escaped(text)));
    USAGE
}
