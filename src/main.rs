//! The `switchboard` command: a server to try things with, and an example of a program around the library.

mod command;

fn main() -> std::process::ExitCode {
    command::main()
}
