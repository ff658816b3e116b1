//! An existing program with its own loop pushes readings to everybody who listens.
//!
//! The loop never waits for a client: a push is sent at once or queued. A client that is too slow loses nothing but its own
//! connection, which is closed with 1013 when its queue is full; it may come again.

use std::{thread, time::Duration};

use switchboard::{
    Audience, Handled, Limits, Message, Opening, Refusal, Server, ServerResult, WebSocket, WebSocketServer,
};

/// Nobody's thread: the readings come from elsewhere, and nothing is expected from the client.
struct Listener;

impl WebSocketServer for Listener {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, _ws: &WebSocket, _message: Message) -> Handled {
        Handled::Yes // or what nobody takes would fill the inbox
    }
}

/// Stands for the hardware.
fn measure(tick: u32) -> f64 {
    20.0 + (f64::from(tick) / 10.0).sin()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let mut limits = Limits::default();
    limits.max_queue_messages = 100; // behind what the system takes for a client, ten seconds of readings
    let builder = Server::builder().listen(address).limits(limits).route("/readings", || Listener);
    let server = builder.bind()?.spawn()?;
    println!("listening on ws://{}/readings", server.local_addrs()[0]);
    let hub = server.hub();

    // The program as it was, and one line more.
    let readings: u32 = std::env::args().nth(2).map_or(Ok(u32::MAX), |n| n.parse())?;
    for tick in 0..readings {
        let celsius = measure(tick);
        let result = hub.broadcast(Audience::Path("/readings"), format!("{{\"celsius\":{celsius:.2}}}"))?;
        if result.gone > 0 {
            println!("{} listeners are leaving, or were too slow", result.gone);
        }
        thread::sleep(Duration::from_millis(100));
    }

    server.shutdown(Duration::from_secs(5))?; // it would end as well when it is dropped
    Ok(())
}
