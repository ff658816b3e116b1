#![cfg(all(feature = "cli", feature = "manage", feature = "__tls"))]
//! `switchboard top` at a terminal: what it shows, its keys, and that the terminal is as it was, whatever ends it.

mod common;

use std::process::{Command, Stdio};

use common::{PATIENCE, commanded::Commanded, eventually, terminal::Terminal};
use rustix::{process::Signal, termios::LocalModes};
use switchboard::{Audience, Client};

const TO_SCREEN: &str = "\x1b[?1049h";
const FROM_SCREEN: &str = "\x1b[?1049l";

/// At a terminal of so many columns and rows. It asks often.
fn start(managed: &Commanded, size: (u16, u16)) -> Terminal {
    let mut command = managed.command(&["top", "--interval", "0.1"]);
    let mut terminal = Terminal::spawn(command.env("TERM", "xterm"), Some(size));
    terminal.wait_for(TO_SCREEN);
    assert!(!terminal.modes().intersects(LocalModes::ICANON | LocalModes::ECHO));
    terminal
}

/// It ends with this exit code, and the terminal is as it was.
#[track_caller]
fn assert_ends(mut terminal: Terminal, code: i32) {
    terminal.wait_for(FROM_SCREEN);
    let mut status = None;
    eventually("it ends", || {
        status = terminal.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(code));
    assert!(terminal.modes().contains(LocalModes::ICANON | LocalModes::ECHO));
}

#[test]
fn connections_are_shown_as_they_are_now() {
    let managed = Commanded::new();
    let (client, id) = managed.connect("/shared/busy?user=%1b%5b");
    let (_other, other) = managed.connect("/echo");
    let mut terminal = start(&managed, (80, 24));
    terminal.wait_for("2 connections, 1 shared");
    terminal.wait_for("OUT/s▼");
    terminal.wait_for(" +0/s -0/s");
    // The one that gets something comes first: at the head of the rows, which begin in the fifth line.
    let mut number = 0;
    let first = format!("\x1b[5;1H {}", id.short());
    eventually("it is the first", || {
        number += 1;
        let _ = managed.hub.push(&id, format!("message {number}")).unwrap();
        assert!(client.read_message(PATIENCE).is_ok());
        terminal.has_shown(&first)
    });
    terminal.wait_for("  pushes ");
    terminal.wait_for(", up ");
    terminal.wait_for("\\u{1b}[ "); // what a stranger wrote does nothing
    managed.hub.close(&other, 1000, "").unwrap();
    terminal.wait_for("1 connection, 1 shared");
    terminal.write("q");
    assert_ends(terminal, 0);
}

#[test]
fn keys_sort_find_and_move() {
    let managed = Commanded::new();
    let clients: Vec<_> =
        (0..30).map(|n| managed.connect(&format!("/shared/{n}?user=user-{n:02}"))).collect();
    let mut terminal = start(&managed, (80, 15)); // ten rows
    terminal.wait_for(" 1-10 of 30 ");
    for (keys, shown) in [
        ("\x1b[6~", " 11-20 of 30 "),
        ("\x1b[F", " 21-30 of 30 "),
        ("\x1b[B\x1b[A", " 20-29 of 30 "),
        ("\x1b[H", " 1-10 of 30 "),
        ("S", "IN/s▼"),
        ("S", "PATH▼"),
        ("S", "USER▼"),
        ("r", "USER▲"),
        ("", "user-29"),
        ("s", "PATH▼"),
        ("/user-1", " /user-1_"),
        ("\r", " 1-10 of 10 with \"user-1\""),
        ("/", " /user-1_"),
        ("7", " /user-17_"),
        ("\x7f", " /user-1_"),
        ("\x15none", " /none_"),
        ("\r", " 0-0 of 0 with \"none\""),
        ("/", " /none_"),
        ("\x1b", " 1-10 of 30 "),
    ] {
        terminal.write(keys);
        terminal.wait_for(shown);
    }
    drop(clients);
    terminal.write("q");
    assert_ends(terminal, 0);
}

#[test]
fn it_fits_a_terminal_that_changes_its_size() {
    let managed = Commanded::new();
    let _clients: Vec<_> = (0..60).map(|n| managed.connect(&format!("/shared/{n}"))).collect();
    let mut terminal = start(&managed, (80, 24));
    terminal.wait_for(" 1-19 of 60 ");
    terminal.resize((200, 50));
    terminal.wait_for("AGENT"); // there is room for it
    terminal.wait_for(" 1-45 of 60 ");
    terminal.resize((20, 6));
    terminal.wait_for("1-1 of 60");
    terminal.resize((1, 1));
    terminal.resize((80, 24));
    terminal.wait_for(" 1-19 of 60 ");
    terminal.write("\x04");
    assert_ends(terminal, 0);
}

#[test]
fn the_terminal_is_as_it_was_after_a_signal() {
    let managed = Commanded::new();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut terminal = start(&managed, (80, 24));
        terminal.wait_for("0 connections");
        terminal.signal(signal);
        assert_ends(terminal, 130);
    }
}

#[test]
fn it_can_be_stopped_and_goes_on() {
    let managed = Commanded::new();
    let mut terminal = start(&managed, (80, 24));
    terminal.wait_for("0 connections");
    terminal.signal(Signal::TSTP);
    terminal.wait_for(FROM_SCREEN);
    eventually("it is stopped", || terminal.is_stopped());
    assert!(terminal.modes().contains(LocalModes::ICANON | LocalModes::ECHO));
    terminal.signal(Signal::CONT);
    terminal.wait_for(TO_SCREEN);
    terminal.wait_for("0 connections"); // all is drawn again
    assert!(!terminal.modes().intersects(LocalModes::ICANON | LocalModes::ECHO));
    terminal.write("q");
    assert_ends(terminal, 0);
}

#[test]
fn a_server_that_has_gone_is_told_and_waited_for() {
    let managed = Commanded::new();
    let mut terminal = start(&managed, (80, 24));
    terminal.wait_for("0 connections");
    let folder = managed.stop();
    terminal.wait_for("cannot be reached");
    let managed = Commanded::in_folder(folder);
    let (_client, id): (Client, _) = managed.connect("/shared/a");
    terminal.wait_for("1 connection, 1 shared");
    terminal.wait_for(id.short());
    terminal.write("q");
    assert_ends(terminal, 0);
}

#[test]
fn without_a_terminal_it_says_what_else_there_is() {
    let managed = Commanded::new();
    for (term, stdout) in [("dumb", None), ("xterm", Some(Stdio::piped()))] {
        let mut command: Command = managed.command(&["top"]);
        if let Some(stdout) = stdout {
            let output = command.env("TERM", term).stdin(Stdio::null()).stdout(stdout).output().unwrap();
            assert_eq!(output.status.code(), Some(2));
            assert!(String::from_utf8(output.stderr).unwrap().contains("list --json"));
        } else {
            let mut terminal = Terminal::spawn(command.env("TERM", term), None);
            terminal.wait_for("list --json");
            eventually("it ends", || terminal.child.try_wait().unwrap().is_some_and(|s| s.code() == Some(2)));
        }
    }
}

#[test]
fn many_connections_are_asked_for_page_by_page_and_less_often() {
    let managed = Commanded::new();
    let _clients: Vec<_> = (0..1200).map(|_| managed.connect("/shared/a")).collect();
    let mut terminal = start(&managed, (80, 24));
    terminal.wait_for("1,200 connections, 1,200 shared");
    terminal.write("\x1b[F");
    terminal.wait_for("1,182-1,200 of 1,200");
    managed.hub.close_all(Audience::All, 1000, "").unwrap();
    terminal.wait_for("0 connections");
    terminal.write("q");
    assert_ends(terminal, 0);
}
