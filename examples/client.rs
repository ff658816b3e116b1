//! A client: what is typed goes to the server, and what comes from there is shown, each at its time.
//!
//!     cargo run --example echo                                  # in another terminal
//!     cargo run --example client -- ws://127.0.0.1:8080/echo

use std::{
    error::Error,
    io::{self, BufRead},
    thread,
};

use switchboard::Client;

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:8080/echo".into());
    let client = Client::connect(&url)?;
    println!("connected to {url}");
    thread::scope(|scope| {
        scope.spawn(|| {
            for message in client.messages() {
                match message.as_text() {
                    Some(text) => println!("< {text}"),
                    None => println!("< {} bytes", message.len()),
                }
            }
            // Whoever types sees it at the next line.
            println!("the connection has ended: {:?}", client.close_reason());
        });
        for line in io::stdin().lock().lines() {
            if client.write(line?).is_err() {
                break;
            }
        }
        client.close(1000, ""); // the end of the input ends the reading, too
        Ok::<_, io::Error>(())
    })?;
    println!("{}", client.finish());
    Ok(())
}
