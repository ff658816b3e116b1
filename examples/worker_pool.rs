//! Thousands of connections, and four threads that work for them.
//!
//! Each connection is shared: it has no thread. Its messages are given to the pool, one at a time and in order, and those of
//! different connections at the same time. Here the work is to count primes, which takes a while.

use switchboard::{
    Handled, Limits, Message, Opening, Refusal, Server, ServerError, ServerResult, WebSocket, WebSocketServer,
};

/// One instance for each connection, as always: it may keep what belongs to its client.
#[derive(Default)]
struct Primes {
    asked: u32,
}

impl WebSocketServer for Primes {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        ws.write("send a number")?;
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        self.asked += 1;
        let answer = match message.as_text().map(str::parse::<u32>) {
            Some(Ok(below)) if below <= 1_000_000 => format!("{} primes below {below}", count_primes(below)),
            _ => "a number up to a million, please".into(),
        };
        // It does not wait for the client: what a slow one does not take is queued.
        if ws.write(format!("{}. {answer}", self.asked)).is_err() {
            println!("{}: left before its answer", ws.websocket_id().short());
        }
        Handled::Yes
    }
}

fn count_primes(below: u32) -> usize {
    (2..below).filter(|n| (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0)).count()
}

fn main() -> Result<(), ServerError> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let mut limits = Limits::default();
    limits.workers = 4;
    limits.max_connections = 20_000; // the limit on open files has to allow it: ulimit -n
    let server = Server::builder().listen(address).limits(limits).route("/primes", Primes::default).bind()?;
    println!("listening on ws://{}/primes", server.local_addrs()[0]);
    server.run()
}
