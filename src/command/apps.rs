//! What `serve` serves.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use switchboard::{Error, READ_LEN, ServerResult, WebSocket, WebSocketServer};

/// Sends each message back, whole and of its kind.
pub(super) struct Echo;

impl WebSocketServer for Echo {
    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        for message in ws.messages() {
            ws.write(message)?;
        }
        Ok(())
    }
}

/// The original's example: echoes, says when nothing came for 10 s, and ends at `exit`.
pub(super) struct MyWebSocketServer;

impl WebSocketServer for MyWebSocketServer {
    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        loop {
            match ws.read(READ_LEN, Duration::from_secs(10)) {
                Err(Error::Timeout) => ws.write(format!("Server timed-out at {}", time_of_day()))?,
                Ok(data) if data == "exit" => break,
                Ok(data) => ws.write(data)?,
                Err(closed) => return Err(closed.into()),
            }
        }
        ws.end_server();
        Ok(())
    }
}

fn time_of_day() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}
