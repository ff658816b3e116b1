#![cfg(all(feature = "cli", feature = "__tls", feature = "manage", not(target_vendor = "apple")))]
//! `switchboard check` tells what `serve` would, before it does.

mod common;

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, process::Command};

use common::{
    authority::{DAY, Kind},
    folder::Folder,
    process::{COMMAND, Process},
};
use rustix::process::Signal;

const ANY: &str = "127.0.0.1:0";

const TLS: [&str; 6] = ["--tls-listen", ANY, "--cert", "certs/server.pem", "--key", "certs/server.key"];

/// The exit code, and the lines.
fn check(args: &[&str]) -> (i32, Vec<String>) {
    // The default may be more than this machine allows, which would be a warning.
    let output =
        Command::new(COMMAND).args(["check", "--max-connections", "10"]).args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some() && stderr.is_empty(), "{args:?}: {stderr}");
    (output.status.code().unwrap(), text.lines().map(str::to_owned).collect())
}

/// What `serve` says at its end, if it does not start.
fn serve(args: &[&str]) -> Option<String> {
    let mut process =
        Process::start(&[&["serve", "--max-connections", "10", "--log-level", "info"], args].concat());
    let line = process.next_line();
    if let Some(error) = line.strip_prefix("switchboard: ") {
        assert_eq!(process.end().status.code(), Some(1));
        return Some(error.to_owned());
    }
    process.signal(Signal::TERM);
    let ended = process.end();
    match ended.status.code() {
        Some(0) => None,
        _ => ended.stderr.last().and_then(|line| line.strip_prefix("switchboard: ")).map(str::to_owned),
    }
}

#[test]
fn what_serve_would_end_with_is_an_error_and_nothing_else_is() {
    let folder = Folder::new();
    let busy = TcpListener::bind(ANY).unwrap();
    let taken = busy.local_addr().unwrap().to_string();
    let (short, token) =
        (folder.write("short", "x"), folder.write("token", "0123456789abcdef0123456789abcdef\n"));
    let keys = folder.write("keys", "short\n");
    for file in [&short, &token, &keys] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let (nowhere, path) = (folder.path("nowhere/x"), folder.path(""));
    let (unix, unix_nowhere) = (format!("unix:{}", folder.path("socket")), format!("unix:{nowhere}"));
    let of_file = format!("unix:{token}");
    let pair = |cert, key| ["--tls-listen", ANY, "--cert", cert, "--key", key];
    let other = "certs/other.key";
    for args in [
        &["--listen", ANY][..],
        &["--listen", &unix],
        &TLS,
        &["--listen", ANY, "--manage", &unix],
        &["--listen", ANY, "--manage", ANY, "--manage-token-file", &token],
        &["--listen", ANY, "--www", &path],
        &["--listen", ANY, "--listen", ANY],
        &[&TLS[..], &["--redirect-port", ANY]].concat(),
        // And what does not work:
        &["--listen", &taken],
        &["--listen", "127.0.0.1"],
        &["--listen", ":8080"],
        &["--listen", "http://127.0.0.1:1"],
        &["--listen", &unix_nowhere],
        &["--listen", &of_file],
        &["--listen", ANY, "--www", &nowhere],
        &["--listen", ANY, "--allow-origin", "example.com"],
        &["--listen", ANY, "--host", "a b"],
        &["--listen", ANY, "--session-key-file", &keys],
        &["--listen", ANY, "--session-key-file", &nowhere],
        &["--listen", ANY, "--log-to", "stderr", "--log-max-size", "1M"],
        &["--listen", ANY, "--redirect-port", ANY],
        &["--listen", ANY, "--redirect-port", &taken, "--https-port", "443"],
        &["--listen", ANY, "--redirect-port", ANY, "--https-port", "443"],
        &["--listen", ANY, "--log-file", &path],
        &["--listen", ANY, "--log-file", &nowhere],
        &["--listen", ANY, "--manage", ANY],
        &["--listen", ANY, "--manage", ANY, "--manage-token-file", &short],
        &["--listen", ANY, "--manage", "0.0.0.0:0", "--manage-token-file", &token],
        &["--listen", ANY, "--manage", &taken, "--manage-token-file", &token],
        &["--listen", ANY, "--manage-read-only", &taken, "--manage-token-file", &token],
        &["--listen", ANY, "--manage", &unix_nowhere],
        &["--tls-listen", &taken, "--cert", "certs/server.pem", "--key", "certs/server.key"],
        &pair("certs/server.pem", other),
        &pair("certs/server.key", "certs/server.pem"),
        &pair("certs", "certs/server.key"),
        &pair("/nowhere", other),
    ] {
        let (code, lines) = check(args);
        let errors: Vec<_> = lines.iter().filter(|line| line.starts_with("error ")).collect();
        match serve(args) {
            None => assert!(errors.is_empty() && code < 2, "{args:?}: serve does not mind: {lines:#?}"),
            Some(error) => {
                // The system chooses another port each time.
                let without_numbers = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
                let is_it = |line: &&&String| {
                    let of_log = line.contains("write the log to") && error.contains("write the log to");
                    of_log || without_numbers(line).contains(&without_numbers(&error))
                };
                assert!(
                    code == 2 && errors.iter().any(|line| is_it(&line)),
                    "{args:?}: {error:?} is not in {lines:#?}"
                );
            }
        }
    }
}

#[test]
fn a_pipe_that_nobody_writes_into_does_not_hold_the_start_for_ever() {
    let folder = Folder::new();
    let pipe = folder.path("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
    let managed = ["--listen", ANY, "--manage", ANY, "--manage-token-file", &pipe];
    let tls = |cert, key| ["--tls-listen", ANY, "--cert", cert, "--key", key];
    let starts: Vec<_> = ["serve", "check"]
        .into_iter()
        .flat_map(|command| {
            [
                &["--config", &pipe][..],
                &["--listen", ANY, "--session-key-file", &pipe],
                &managed,
                &tls("certs/server.pem", &pipe),
                &tls(&pipe, "certs/server.key"),
            ]
            .map(|args| [&[command], args].concat())
        })
        .chain([vec!["list", "--manage", "http://127.0.0.1:1", "--manage-token-file", &pipe]])
        .collect();
    let all = starts.iter().map(|args| (args, Process::start(args))).collect::<Vec<_>>();
    for (args, process) in all {
        let ended = process.end();
        let told = ended.stdout + &ended.stderr.join("\n");
        assert_ne!(ended.status.code(), Some(0), "{args:?}: {told}");
        assert!(told.contains(&pipe) && told.contains("nobody has written"), "{args:?}: {told}");
    }
}

#[test]
fn all_that_is_wrong_is_told_the_worst_first() {
    let listen =
        ["--listen", "127.0.0.1", "--listen", ANY, "--host", "a b", "--session-key-file", "/nowhere/x"];
    let (code, lines) = check(&[&listen[..], &TLS, &["--host", "box.example"]].concat());
    let level = |line: &String| line.split(' ').next().unwrap().to_owned();
    let levels: Vec<_> = lines.iter().map(level).collect();
    assert_eq!(
        (code, &levels[..4]),
        (2, &["error", "error", "error", "warning"].map(str::to_owned)[..]),
        "{lines:#?}"
    );
    assert!(levels[4..].iter().all(|level| ["warning", "ok"].contains(&level.as_str())), "{lines:#?}");
    for part in ["no port", "\"a b\" is no host", "/nowhere/x", "no certificate is for box.example"] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}: {lines:#?}");
    }
}

#[test]
fn nothing_is_made_and_nobody_is_taken() {
    let folder = Folder::new();
    let server = TcpListener::bind(ANY).unwrap();
    let [keys, log, unix] = ["keys", "log", "socket"].map(|name| folder.path(name));
    let unix = format!("unix:{unix}");
    let args = [
        "--listen",
        &unix,
        "--session-key-file",
        &keys,
        "--log-file",
        &log,
        "--manage",
        &format!("{unix}-2"),
    ];
    let (code, lines) = check(&args);
    assert_eq!(code, 0, "{lines:#?}");
    assert_eq!(fs::read_dir(&*folder).unwrap().count(), 0);
    let address = server.local_addr().unwrap().to_string();
    assert_eq!(check(&["--listen", &address]).0, 2);
    server.set_nonblocking(true).unwrap();
    assert!(server.accept().is_err(), "the one who looks has not connected");
    drop(server);
    assert_eq!(check(&["--listen", &address]).0, 0);
    let again = TcpListener::bind(&address);
    assert!(again.is_ok(), "{again:?}");
}

#[test]
fn a_server_that_runs_is_to_be_there() {
    let folder = Folder::new();
    let unix = format!("unix:{}", folder.path("socket"));
    let (code, lines) = check(&["--running", "--listen", &unix]);
    assert!(code == 2 && lines[0].contains("nobody listens there"), "{lines:#?}");
    let mut process = Process::start(&["--listen", ANY, "--listen", &unix, "--max-connections", "10"]);
    let address = process.address("http").to_string();
    process.line("listening on");
    let (code, lines) = check(&["--running", "--listen", &address, "--listen", &unix]);
    assert!(code == 0 && lines.len() == 2 && lines[0].contains("as it is to be"), "{lines:#?}");
    assert_eq!(check(&["--listen", &address, "--listen", &unix]).0, 2);
    process.stop();
}

#[test]
fn what_is_behind_an_address_in_use_is_looked_at_too() {
    let folder = Folder::new();
    let soon = Kind { valid: (-DAY, 20 * DAY), ..Kind::server("soon") }.signed();
    let (cert, key) = (folder.write("cert", soon.pem()), folder.write("key", soon.key_pem()));
    // Each stands for the server.
    let tcp = [(); 2].map(|()| TcpListener::bind(ANY).unwrap());
    let [https, http] = tcp.each_ref().map(|one| one.local_addr().unwrap().to_string());
    let unix = std::os::unix::net::UnixListener::bind(folder.path("socket")).unwrap();
    let of_unix = format!("unix:{},mode=0600", folder.path("socket"));
    for tls in [&https, &of_unix] {
        let args = ["--running", "--tls-listen", tls, "--cert", &cert, "--key", &key];
        let (code, lines) = check(&args);
        assert!(code == 1 && lines.iter().any(|line| line.contains("expires in 1")), "{lines:#?}");
    }
    let tls = ["--running", "--tls-listen", &https, "--cert", &cert, "--key", &key];
    let (code, lines) = check(&[&tls[..], &["--redirect-port", &http]].concat());
    assert_eq!(code, 1, "nobody is told to add a listener with TLS: {lines:#?}");
    drop((tcp, unix));
}

#[test]
fn certificates_are_looked_at_as_clients_do() {
    let folder = Folder::new();
    let ca = Kind::ca("ca").signed();
    for (name, valid, level, told) in [
        ("good", (-DAY, 90 * DAY), 0, "is valid until 2"),
        ("soon", (-DAY, 20 * DAY), 1, "expires in 1"),
        ("expired", (-3 * DAY, -DAY), 2, "has expired"),
        ("early", (DAY, 90 * DAY), 2, "is not yet valid"),
    ] {
        let server = Kind { valid, ..Kind::server(name) }.issued_by(&ca);
        let chain = common::authority::pem(&[&server, &ca]);
        let (cert, key) = (folder.write(name, chain), folder.write("key", server.key_pem()));
        let (code, lines) = check(&["--tls-listen", ANY, "--cert", &cert, "--key", &key]);
        assert!(code == level && lines.iter().any(|line| line.contains(told)), "{name}: {lines:#?}");
        if name == "good" {
            let alone = folder.write("alone", server.pem());
            let (code, lines) = check(&["--tls-listen", ANY, "--cert", &alone, "--key", &key]);
            assert!(
                code == 1 && lines[0].contains("neither there nor among this system's roots"),
                "{lines:#?}"
            );
        }
    }
}

#[test]
fn each_line_can_be_json_and_an_unknown_variable_is_warned_of() {
    let output = Command::new(COMMAND)
        .args(["check", "--json", "--max-connections", "10", "--listen", ANY])
        .env("SWITCHBOARD_LISTENS", "x")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["level"], &lines[0]["about"]),
        (&"warning".into(), &"environment".into()),
        "{text}"
    );
    assert!(lines[0]["text"].as_str().unwrap().contains("did you mean SWITCHBOARD_LISTEN?"), "{text}");
    assert_eq!(lines[1]["level"], "ok", "{text}");
}
