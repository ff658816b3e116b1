#![cfg(all(feature = "cli", feature = "__tls"))]
//! Options of the command from the environment and from a file.

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use common::{
    folder::Folder,
    process::{COMMAND, Process},
};

fn command(args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(COMMAND);
    command.args(args);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SWITCHBOARD_")) {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    command
}

fn run(args: &[&str], variables: &[(&str, &str)]) -> Output {
    command(args, variables).output().unwrap()
}

/// What an option is set to, in all.
fn set(args: &[&str], variables: &[(&str, &str)], option: &str) -> Option<String> {
    let output = run(&[&["check", "--print-config"], args].concat(), variables);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |line: &str| line.strip_prefix(option)?.strip_prefix(" = ").map(str::to_owned);
    text.lines().find_map(value)
}

/// What is told of a mistake.
fn told(args: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(args, variables);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?} {variables:?}: {text}");
    text
}

#[test]
fn the_command_line_comes_before_the_environment_and_that_before_the_file() {
    let folder = Folder::new();
    let file =
        folder.write("a.toml", "max-connections = 1\nlisten = [\"file:1\", \"file:2\"]\nworkers = 3\n");
    let (config, number) = (["--config", &file], ("SWITCHBOARD_MAX_CONNECTIONS", "2"));
    let option = "max-connections";
    assert_eq!(set(&[], &[], option), None);
    assert_eq!(set(&config, &[], option).as_deref(), Some("1"));
    assert_eq!(set(&config, &[number], option).as_deref(), Some("2"));
    assert_eq!(
        set(&[&config[..], &["--max-connections", "3"]].concat(), &[number], option).as_deref(),
        Some("3")
    );
    assert_eq!(set(&[], &[("SWITCHBOARD_CONFIG", &file)], option).as_deref(), Some("1"));
    // Lists are not added up.
    assert_eq!(set(&config, &[], "listen").as_deref(), Some("[\"file:1\", \"file:2\"]"));
    let two = ("SWITCHBOARD_LISTEN", " one:1\t two:2\n");
    assert_eq!(set(&config, &[two], "listen").as_deref(), Some("[\"one:1\", \"two:2\"]"));
    let typed = [&config[..], &["--listen", "typed:1"]].concat();
    assert_eq!(set(&typed, &[two], "listen").as_deref(), Some("[\"typed:1\"]"));
    // What is empty is not there.
    assert_eq!(set(&config, &[("SWITCHBOARD_MAX_CONNECTIONS", "")], option).as_deref(), Some("1"));
    // What does not go together with something that is heeded before it is left out.
    let log = ["--config", &folder.write("b.toml", "log-to = \"syslog\"\n")];
    assert_eq!(set(&log, &[], "log-to").as_deref(), Some("\"syslog\""));
    let of_variable = ("SWITCHBOARD_LOG_FILE", "x");
    assert_eq!(set(&log, &[of_variable], "log-file").as_deref(), Some("\"x\""));
    assert_eq!(set(&log, &[of_variable], "log-to"), None);
    assert_eq!(set(&["--log-to", "stderr"], &[of_variable], "log-file"), None);
    let headers = ("SWITCHBOARD_HEADER", "X-A: a b; c\nX-B: d, e");
    assert_eq!(set(&[], &[headers], "header").as_deref(), Some("[\"X-A: a b; c\", \"X-B: d, e\"]"));
}

/// Whatever the command has: no option may be without.
#[test]
fn each_option_names_its_variable_in_the_help() {
    let commands = String::from_utf8(run(&["--help"], &[]).stdout).unwrap();
    let names = commands.split("Options of serve").next().unwrap().lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        name.bytes().all(|b| b.is_ascii_lowercase()).then_some(name)
    });
    let names: Vec<_> = names.filter(|name| !["", "help", "completions", "man"].contains(name)).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let help = String::from_utf8(run(&[name, "--help"], &[("COLUMNS", "10000")]).stdout).unwrap();
        let mut options = 0;
        let begins = |line: &str| {
            line.starts_with("      --") || line.starts_with("  -") && line[4..].starts_with(", --")
        };
        let lines: Vec<_> = help.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| begins(line)) {
            let long = line.split_once("--").unwrap().1.split(' ').next().unwrap();
            let rest = lines[at + 1..].iter().take_while(|line| line.starts_with("       "));
            let text =
                std::iter::once(line).chain(rest).map(|line| line.trim()).collect::<Vec<_>>().join(" ");
            let variable = long.replace('-', "_").to_uppercase();
            if long != "help" && long != "version" {
                let is_named = text.contains("[env: SWITCHBOARD_") && text.contains(&format!("{variable}]"));
                assert!(is_named, "{name}: --{long} in {text}");
                options += 1;
            }
        }
        assert!(options > 0, "{name}: {help}");
    }
}

#[test]
fn mistakes_are_told_with_where_they_are() {
    let folder = Folder::new();
    let told_of = |text: &str| told(&["--config", &folder.write("a.toml", text)], &[]);
    let wrong = told_of("# comment\nmax-conections = 5\n\nlisten = 8080\nwww = \"a\"\nwww = \"b\"\n");
    for part in [
        "a.toml:2: there is no option max-conections; did you mean max-connections?",
        "a.toml:4: listen is a text, in quotes: listen = \"8080\"",
        "a.toml:6: www is in line 5 already",
    ] {
        assert!(wrong.contains(part), "{wrong}");
    }
    assert!(told_of("max-connections = 0").contains("--max-connections is from line 1 of "));
    assert!(told_of("listen = 'a:1'\nlog-keep = 3").contains("--log-keep is from line 2 of "));
    assert!(told_of("log-level = \"loud\"").contains("off, error, warn, info, debug, trace"));
    assert!(told_of("listen = \"x").contains("a.toml:1: "));
    assert!(
        told(&["--config", "/nowhere/a.toml"], &[]).contains("/nowhere/a.toml, cannot be read: No such file")
    );
    let of_variable = told(&[], &[("SWITCHBOARD_PING_INTERVAL", "10s")]);
    assert!(of_variable.contains("--ping-interval is from SWITCHBOARD_PING_INTERVAL"), "{of_variable}");
    assert!(of_variable.contains("without a unit: --ping-interval 10"), "{of_variable}");
    let of_flag = told(&["list"], &[("SWITCHBOARD_LIST_JSON", "maybe")]);
    assert!(of_flag.contains("SWITCHBOARD_LIST_JSON is \"maybe\": it must be true or false"), "{of_flag}");
    assert!(told(&["--max-connections", "-1"], &[]).contains("-1 is not in 1..="));
}

#[test]
fn a_server_has_what_is_set() {
    let folder = Folder::new();
    let file =
        folder.write("a.toml", "listen = [\"127.0.0.1:0\"]\nheader = ['X-From: file']\nlog-level = 'off'\n");
    let mut command = command(&["--config", &file], &[("SWITCHBOARD_LOG_LEVEL", "info")]);
    let mut process = Process::spawn(&mut command);
    let address = process.address("http");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(common::reply::Reply::read(&mut stream).header("x-from"), Some("file"));
    process.stop();
}

/// One file has a server's options, and those that find it.
#[cfg(feature = "manage")]
#[test]
fn commands_find_the_server_by_the_same_file() {
    let folder = Folder::new();
    let socket = folder.path("manage");
    let text = format!("listen = ['127.0.0.1:0']\nmanage = 'unix:{socket}'\n[list]\njson = true\n");
    let file = folder.write("a.toml", text);
    let mut process = Process::spawn(&mut command(&["--config", &file], &[]));
    process.line("has the console");
    for (args, variables) in [
        (&["list", "--config", &file][..], &[][..]),
        (&["list"], &[("SWITCHBOARD_CONFIG", &*file)]),
        (&["list"], &[("SWITCHBOARD_MANAGE", &*format!("unix:{socket}"))]),
    ] {
        let output = run(args, variables);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    process.stop();
}

/// Where a server is, as its clients have it, is no reason for another one to be there, or not to start.
#[cfg(feature = "manage")]
#[test]
fn what_is_for_clients_is_nothing_to_a_server() {
    let (place, token) = ("SWITCHBOARD_MANAGE", ("SWITCHBOARD_MANAGE_TOKEN_FILE", "token"));
    for variables in [&[(place, "http://127.0.0.1:9090"), token][..], &[token]] {
        assert_eq!((set(&[], variables, "manage"), set(&[], variables, "manage-token-file")), (None, None));
    }
    let both = [(place, "127.0.0.1:9090"), token];
    assert_eq!(set(&[], &both, "manage").as_deref(), Some("[\"127.0.0.1:9090\"]"));
    assert_eq!(set(&[], &both, "manage-token-file").as_deref(), Some("\"token\""));
    let typed = ["--manage", "127.0.0.1:1"];
    assert_eq!(set(&typed, &[token], "manage-token-file").as_deref(), Some("\"token\""));
}

#[test]
fn a_file_with_a_secret_that_others_can_read_is_warned_of() {
    let folder = Folder::new();
    let text = "[connect]\nheader = [\"Authorization: Bearer 1234567890123456\"]\n";
    let file = folder.write("a.toml", text);
    for (mode, is_told) in [(0o644, true), (0o640, true), (0o600, false)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let output = run(&["connect", "--config", &file, "ws://127.0.0.1:9/"], &[]);
        let told = String::from_utf8(output.stderr).unwrap();
        let part = "others can read the secret of header below [connect] in line 2: chmod 600";
        assert_eq!(told.contains(part), is_told, "{mode:o}: {told}");
        assert!(!told.contains("1234567890123456"), "{told}");
    }
}

#[cfg(feature = "completions")]
#[test]
fn completions_and_manual_have_all_commands() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell], &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        for word in ["check", "broadcast", "max-connections", "manage-token-file"] {
            assert!(output.status.success() && text.contains(word), "{shell}: {word}");
        }
    }
    let bash = folder.write("bash", run(&["completions", "bash"], &[]).stdout);
    assert!(Command::new("bash").args(["-n", &bash]).status().unwrap().success());
    assert!(run(&["man", folder.to_str().unwrap()], &[]).status.success());
    for page in ["switchboard.1", "switchboard-serve.1", "switchboard-check.1", "switchboard-list.1"] {
        let text = fs::read_to_string(folder.path(page)).unwrap();
        let title =
            text.lines().find(|line| line.starts_with(".TH ")).unwrap_or_else(|| panic!("{page}: {text}"));
        assert!(title.contains(concat!("\"switchboard ", env!("CARGO_PKG_VERSION"), '"')), "{page}: {title}");
    }
    let page = String::from_utf8(run(&["man"], &[]).stdout).unwrap();
    assert!(page.contains("SIGHUP") && page.contains("SWITCHBOARD_LISTEN"), "{page}");
}
