//! Several gateway threads share the connections.
#![cfg(feature = "__tls")]
mod common;

use common::{SCHEMES, SharedEcho, next_message, serve};
use switchboard::{Audience, Limits};
use tungstenite::Message as Sent;

#[test]
fn three_gateways_drive_the_connections_between_them() {
    for workers in [0, 2] {
        let mut limits = Limits::default();
        (limits.gateways, limits.workers) = (3, workers);
        let server = serve(|builder| builder.limits(limits).route("/", || SharedEcho));
        let mut clients: Vec<_> = (0..30).map(|i| server.connect(SCHEMES[i % 2], "/")).collect();
        for (i, client) in clients.iter_mut().enumerate() {
            client.send(Sent::text(i.to_string())).unwrap();
        }
        for (i, client) in clients.iter_mut().enumerate() {
            assert_eq!(next_message(client), Sent::text(i.to_string()));
        }
        let result = server.hub.broadcast(Audience::All, "to all").unwrap();
        assert_eq!(result.sent + result.queued, 30);
        for client in &mut clients {
            assert_eq!(next_message(client), Sent::text("to all"));
        }
    }
}
