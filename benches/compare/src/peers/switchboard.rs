//! The library under test, in its three ways to handle a connection.

use anyhow::Result;
use switchboard::{
    Audience, Handled, Limits, Message, Opening, Refusal, Server, ServerResult, TlsBackend, TlsIdentity, WebSocket,
    WebSocketServer,
};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Synchronous,
    Workers,
    Inline,
}

/// With TLS by this library, if any.
pub(super) fn serve(port: u16, tls: Option<TlsBackend>, kind: Kind) -> Result<()> {
    let mut limits = Limits::default();
    limits.max_connections = 1_000_000; // no other peer counts them
    if kind == Kind::Inline {
        limits.workers = 0;
    }
    let address = format!("127.0.0.1:{port}");
    let server = Server::builder();
    let server = match tls {
        Some(backend) => {
            let identity = TlsIdentity::from_pem(super::CERTIFICATE, super::KEY)?;
            server.listen_tls(address, identity.with_backend(backend))
        }
        None => server.listen(address),
    };
    let server = server.limits(limits).route("/fan", || Fan);
    let server = match kind {
        Kind::Synchronous => server.route("/echo", || Echo),
        Kind::Workers | Kind::Inline => server.route("/echo", || SharedEcho),
    };
    Ok(server.bind()?.run()?)
}

struct Echo;

impl WebSocketServer for Echo {
    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        for message in ws.messages() {
            ws.write(message)?;
        }
        Ok(())
    }
}

struct SharedEcho;

impl WebSocketServer for SharedEcho {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        // It fails only when the client has left.
        let _ = ws.write(message);
        Handled::Yes
    }
}

struct Fan;

impl WebSocketServer for Fan {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        let _ = ws.hub().broadcast(Audience::Path(ws.path()), message);
        Handled::Yes
    }
}
