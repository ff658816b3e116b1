//! Several gateway threads share the connections.
#![cfg(feature = "tls")]
mod common;

use common::{SCHEMES, next_message, serve};
use switchboard::{
    Audience, Handled, Limits, Message, Opening, Refusal, ServerResult, WebSocket, WebSocketServer,
};
use tungstenite::Message as Sent;

struct Shared;

impl WebSocketServer for Shared {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        ws.write(message).unwrap();
        Handled::Yes
    }
}

#[test]
fn three_gateways_drive_the_connections_between_them() {
    for workers in [0, 2] {
        let mut limits = Limits::default();
        (limits.gateways, limits.workers) = (3, workers);
        let server = serve(|builder| builder.limits(limits).route("/", || Shared));
        let mut clients: Vec<_> = (0..30).map(|i| server.connect(SCHEMES[i % 2], "/")).collect();
        for (i, client) in clients.iter_mut().enumerate() {
            client.send(Sent::text(i.to_string())).unwrap();
        }
        for (i, client) in clients.iter_mut().enumerate() {
            assert_eq!(next_message(client), Sent::text(i.to_string()));
        }
        let result = server.hub.broadcast(Audience::All, "to all");
        assert_eq!(result.sent + result.queued, 30);
        for client in &mut clients {
            assert_eq!(next_message(client), Sent::text("to all"));
        }
    }
}
