//! A program that pushes to the connections of another process: a server with a management listener, such as
//! `switchboard serve --manage unix:/run/box.sock`. Where that is stands in SWITCHBOARD_MANAGE.

use switchboard::{Audience, Hub};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hub = Hub::connect(&std::env::var("SWITCHBOARD_MANAGE")?)?; // over TCP: Hub::builder(), with a token
    for connection in hub.all_connections(Audience::Path("/chat")) {
        let id = connection?.id;
        match hub.push(&id, "it rains") {
            Ok(pushed) => println!("{}: {pushed:?}", id.short()),
            Err(e) => println!("{}: {e}", id.short()), // gone, full, or unreachable
        }
    }
    Ok(())
}
