//! The `switchboard` command: a server to try things with, and an example of a program that uses the library.

// Nothing that a peer or the system does may cause a panic; tests may unwrap.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod command;

fn main() -> std::process::ExitCode {
    command::main()
}
