//! The `switchboard` command: a server to try things with, and an example of a program around the library.

// Nothing that a peer or the system does may panic; tests may.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod command;

fn main() -> std::process::ExitCode {
    command::main()
}
