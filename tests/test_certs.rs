#![cfg(all(feature = "test-certs", feature = "__tls"))]
//! The certificates for the tests of programs, used as such a test would.

mod common;

use std::{error::Error, time::Duration};

use switchboard::{Client, Server, TlsIdentity, TlsTrust, test_certs};

#[test]
fn a_program_tests_its_own_wss() -> Result<(), Box<dyn Error>> {
    let server = Server::builder()
        .listen_tls("127.0.0.1:0", test_certs::identity()?)
        .route("/echo", || common::app(common::echo))
        .bind()?
        .spawn()?;
    let port = server.local_addrs()[0].tcp().ok_or("no TCP")?.port();

    for host in ["localhost", "127.0.0.1"] {
        let url = format!("wss://{host}:{port}/echo");
        let client = Client::builder(&url).tls(test_certs::trust()?).connect()?;
        client.write("hello")?;
        assert_eq!(client.read_message(common::PATIENCE)?, "hello");
        // Nobody else trusts it.
        let refused = Client::builder(&url).tls(TlsTrust::system()).connect().unwrap_err();
        assert!(refused.to_string().contains("certificate"), "{refused}");
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
