#![cfg(all(feature = "test-certs", feature = "__tls"))]
//! The certificates for the tests of programs, used as such a test would.

mod common;

use std::{net::TcpStream, time::Duration};

use native_tls::{Certificate, TlsConnector};
use switchboard::{Server, TlsIdentity, test_certs};

#[test]
fn a_program_tests_its_own_wss() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .listen_tls("127.0.0.1:0", test_certs::identity()?)
        .route("/echo", || common::app(common::echo))
        .bind()?
        .spawn()?;
    let address = server.local_addrs()[0].tcp().ok_or("no TCP")?;

    let ca = Certificate::from_pem(test_certs::CA)?;
    let connector = TlsConnector::builder().disable_built_in_roots(true).add_root_certificate(ca).build()?;
    for name in ["localhost", "127.0.0.1", "::1"] {
        let stream = connector.connect(name, TcpStream::connect(address)?)?;
        let (mut client, _) = tungstenite::client("wss://localhost/echo", stream)?;
        client.send("hello".into())?;
        assert_eq!(client.read()?, "hello".into());
    }
    server.shutdown(Duration::ZERO)?;
    Ok(())
}

#[test]
fn the_values_are_those_of_the_files() {
    for (value, file) in [
        (test_certs::CA, "certs/ca.pem"),
        (test_certs::CERTIFICATES, "certs/server.pem"),
        (test_certs::KEY, "certs/server.key"),
    ] {
        assert_eq!(value, std::fs::read(file).unwrap());
    }
    let identity = TlsIdentity::from_pem(test_certs::CERTIFICATES, test_certs::KEY).unwrap();
    assert_eq!(identity.not_after(), test_certs::identity().unwrap().not_after());
    test_certs::trust().unwrap();
}
