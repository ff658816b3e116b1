//! The certificates of `certs/`, for tests of your own `wss://` (feature `test-certs`).
//!
//! The server's certificate is for `localhost`, `127.0.0.1` and `::1`, issued by a CA of its own, which a client under test is
//! told to trust. **Its key is public**, in the source code of this crate: whoever is in between can read and change what is
//! sent. [`bind`](crate::ServerBuilder::bind) warns in the log if it is used on an address that is not loopback, wherever it was
//! loaded from. So enable the feature for tests only:
//!
//! ```toml
//! [dev-dependencies]
//! switchboard = { version = "0.1", features = ["test-certs"] }
//! ```
//!
//! A test:
//!
//! ```
//! # use switchboard::{ServerResult, WebSocket, WebSocketServer};
//! # struct Echo;
//! # impl WebSocketServer for Echo {
//! #     fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
//! #         for message in ws.messages() { ws.write(message)?; }
//! #         Ok(())
//! #     }
//! # }
//! use std::time::Duration;
//! use switchboard::{Client, Server, test_certs};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder()
//!     .listen_tls("127.0.0.1:0", test_certs::identity()?)
//!     .route("/echo", || Echo)
//!     .bind()?
//!     .spawn()?;
//! let port = server.local_addrs()[0].tcp().unwrap().port();
//!
//! let url = format!("wss://localhost:{port}/echo");
//! let client = Client::builder(&url).tls(test_certs::trust()?).connect()?;
//! client.write("hello")?;
//! assert_eq!(client.read_message(Duration::from_secs(5))?, "hello");
//! # Ok(()) }
//! ```
//!
//! Any other client is told to trust [`CA`].

use crate::{
    error::TlsError,
    tls::{TlsIdentity, TlsTrust},
};

/// The certificate of the CA, in PEM: for clients to trust.
pub const CA: &[u8] = include_bytes!("../certs/ca.pem");

/// The server's certificate and that of the CA, in PEM.
pub const CERTIFICATES: &[u8] = include_bytes!("../certs/server.pem");

/// The server's key, in PEM (PKCS#8): no secret.
pub const KEY: &[u8] = include_bytes!("../certs/server.key");

/// The server's certificate and key. Each call makes a new one.
///
/// # Errors
/// If the TLS library refuses them, or the system has no descriptor left to try them.
pub fn identity() -> Result<TlsIdentity, TlsError> {
    // Secure Transport takes no ECDSA keys from PEM (issues 225 and 233 of `native-tls`).
    #[cfg(all(target_vendor = "apple", feature = "tls"))]
    return TlsIdentity::from_pkcs12(include_bytes!("../certs/server.p12"), "switchboard");
    #[cfg(not(all(target_vendor = "apple", feature = "tls")))]
    TlsIdentity::from_pem(CERTIFICATES, KEY)
}

/// For clients of this crate: they trust the CA, and nobody else.
///
/// # Errors
/// None: it can be read.
pub fn trust() -> Result<TlsTrust, TlsError> {
    TlsTrust::ca(CA)
}
