//! What `aws_client.py` and `aws_client.mjs` manage: a server with two ports for that, plain and with TLS.
//!
//!     managed_server CERTIFICATE KEY
//!
//! It prints a line for each address, and ends with its standard input.

use std::{io::Read, time::Duration};

use switchboard::{
    Manage, Opening, Overflow, Refusal, Server, ServerResult, TlsIdentity, WebSocket, WebSocketServer,
};

/// Says its ID, and then whatever the client says.
struct Speaker;

impl WebSocketServer for Speaker {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        if opening.path() == "/drop" {
            opening.set_overflow(Overflow::DropNewest);
        }
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        ws.write(ws.websocket_id().as_str())?;
        for message in ws.messages() {
            ws.write(message)?;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [certificate, key] = args.as_slice() else { panic!("usage: managed_server CERTIFICATE KEY") };
    let socket = std::env::temp_dir().join(format!("switchboard-managed-{}", std::process::id()));
    let (token, read_token) = ("a-token-for-tests-only", "another-for-reading-only");
    let manage = Manage::new()
        .listen("127.0.0.1:0")
        .listen_tls("127.0.0.1:0", TlsIdentity::from_pem_files(certificate, key)?)
        .listen(format!("unix:{}", socket.display()))
        .token(token)
        .read_token(read_token);
    let server = Server::builder().listen("127.0.0.1:0").route("/*", || Speaker).manage(manage);
    let server = server.bind()?.spawn()?;
    let port = |address: &switchboard::ListenAddr| address.tcp().map_or(0, |address| address.port());
    println!("ws ws://127.0.0.1:{}", port(&server.local_addrs()[0]));
    println!("http http://127.0.0.1:{}", port(&server.manage_addrs()[0]));
    println!("https https://localhost:{}", port(&server.manage_addrs()[1]));
    println!("unix {}", socket.display());
    println!("token {token}\nread_token {read_token}\n");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    server.shutdown(Duration::ZERO)?;
    Ok(())
}
