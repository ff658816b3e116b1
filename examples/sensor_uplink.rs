//! A box that dials out, with a loop of its own that the link never holds up: readings go up, commands come down.
//!
//! While there is no connection, the readings of the last minute are kept, and sent when there is one again.

use std::{thread, time::Duration};

use serde_json::{Value, json};
use switchboard::{Client, ClientError, LinkEvent, WhenFull};

/// Stands for the hardware.
fn measure(tick: u64) -> f64 {
    20.0 + (tick as f64 / 10.0).sin()
}

/// A token that a real box would fetch or sign, since it expires.
fn token() -> Result<String, std::env::VarError> {
    std::env::var("UPLINK_TOKEN").or(Ok("secret".into()))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or("ws://127.0.0.1:8080/uplink".into());
    let readings: u64 = args.next().map_or(Ok(u64::MAX), |n| n.parse())?;

    let link = Client::builder(&url)
        .reconnecting()
        .before_attempt(|client, _| {
            token().map(|token| client.header("Authorization", format!("Bearer {token}")))
        })
        .greeting(|_| [json!({ "box": "greenhouse 7" }).to_string()])
        .delays(Duration::from_millis(500), Duration::from_secs(60))
        .queue(600, 64 * 1024, WhenFull::DropOldest)
        .start()?;

    let mut interval = Duration::from_millis(100);
    for tick in 0..readings {
        let reading = json!({ "tick": tick, "celsius": measure(tick), "lost": link.counts().dropped });
        link.send(reading.to_string())?; // sent at once, or queued

        while let Some(event) = link.try_event() {
            println!("{event}");
            if let LinkEvent::Failed { error, .. } = event
                && error.is_lasting()
            {
                tell_somebody(&error);
            }
        }
        while let Some(command) = link.try_read()? {
            match serde_json::from_slice::<Value>(command.as_bytes()) {
                Ok(command) if command["interval"].is_u64() => {
                    let asked = command["interval"].as_u64().unwrap_or_default();
                    interval = Duration::from_millis(asked.clamp(10, 1000)); // whatever it says, it stays in reach
                    println!("a reading each {interval:?} from now on");
                }
                _ => println!("not a command: {command:?}"),
            }
        }
        thread::sleep(interval);
    }

    let unsent = link.finish(Duration::from_secs(5));
    println!("{} readings were not sent", unsent.len());
    Ok(())
}

/// A lamp at the box, for example.
fn tell_somebody(error: &ClientError) {
    eprintln!("this needs somebody: {error}");
}
