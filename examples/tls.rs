//! `wss://` with the bundled test certificates, which are for tests only: their key is public.
//!
//! Try it with `curl --cacert certs/ca.pem https://localhost:8443/`, or `websocat`, or Python:
//!
//! ```python
//! import ssl
//! from websockets.sync.client import connect
//! with connect("wss://localhost:8443/echo", ssl=ssl.create_default_context(cafile="certs/ca.pem")) as ws:
//!     ws.send("hello"); print(ws.recv())
//! ```

use std::path::Path;

use switchboard::{Response, Server, ServerError, ServerResult, TlsIdentity, WebSocket, WebSocketServer};

struct Echo;

impl WebSocketServer for Echo {
    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        for message in ws.messages() {
            ws.write(message)?;
        }
        Ok(())
    }
}

fn main() -> Result<(), ServerError> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8443".into());
    let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs");
    let identity = TlsIdentity::from_pem_files(certs.join("server.pem"), certs.join("server.key"))?;
    // A PKCS#12 archive does as well: TlsIdentity::from_pkcs12_file(certs.join("server.p12"), "switchboard")
    let server = Server::builder()
        .listen_tls(address, identity)
        .route("/echo", || Echo)
        .http("/", |_| Response::html("<p>This page came over TLS.</p>"))
        .bind()?;
    println!("listening on wss://{}/echo", server.local_addrs()[0]);
    server.run()
}
