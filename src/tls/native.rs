//! What `native_tls` is given, and what it cannot do.

use std::{io, os::unix::net::UnixStream};

use native_tls::{HandshakeError, Identity, Protocol, TlsAcceptor, TlsConnector, TlsConnectorBuilder};

use super::{certificate::Certificate, certified::Certified, chain, key::Secret, pem, settings::TlsVersion};
use crate::codec::{Acceptor, Connector};

/// Only for what it can do: TLS 1.2. Returns the certificate that clients get, too.
pub(super) fn acceptor(certified: &Certified) -> Result<(Acceptor, Certificate), String> {
    let builder =
        TlsAcceptor::builder(identity(certified)?).min_protocol_version(Some(Protocol::Tlsv12)).build();
    let acceptor =
        builder.map_err(|e| format!("the certificate and the key do not make a TLS server: {e}"))?;
    let certificate = try_handshake(&acceptor).map_err(|e| match certified.doubtful() {
        Some(certificate) => format!("the key does not match the certificate {certificate} ({e})"),
        None => format!("no client could connect with this certificate and key ({e})"),
    })?;
    Ok((Acceptor::Native(acceptor), certificate))
}

/// The client's side. Without `roots` the server may be anybody.
pub(super) fn connector(
    roots: Option<(&[Certificate], bool)>,
    identity: Option<&Certified>,
    min_version: TlsVersion,
) -> Result<Connector, String> {
    let mut builder = TlsConnector::builder();
    builder.min_protocol_version(Some(match min_version {
        TlsVersion::Tls12 => Protocol::Tlsv12,
        TlsVersion::Tls13 => Protocol::Tlsv13,
    }));
    match roots {
        Some((own, with_system)) => {
            builder.disable_built_in_roots(!with_system);
            for root in own {
                let cannot = |e| format!("the TLS library cannot use the CA's certificate {root}: {e}");
                builder.add_root_certificate(native_tls::Certificate::from_der(&root.der).map_err(cannot)?);
            }
        }
        None => trust_anybody(&mut builder),
    }
    if let Some(certified) = identity {
        builder.identity(self::identity(certified)?);
    }
    let connector = builder.build().map_err(|e| format!("the TLS library cannot be a client: {e}"))?;
    Ok(Connector::Native(connector))
}

fn trust_anybody(builder: &mut TlsConnectorBuilder) {
    builder
        .danger_accept_invalid_certs(true)
        .danger_accept_invalid_hostnames(true)
        .disable_built_in_roots(true);
}

fn identity(certified: &Certified) -> Result<Identity, String> {
    let key = match &certified.secret {
        Secret::Key(key) => pem::encode("PRIVATE KEY", &key.pkcs8),
        #[cfg(target_vendor = "apple")]
        Secret::System(identity) => return Ok(identity.clone()),
    };
    Identity::from_pkcs8(chain::to_pem(&certified.chain).as_bytes(), key.as_bytes())
        .map_err(|e| format!("the TLS library cannot use the certificate or the key: {e}"))
}

/// Does a handshake between an identity and a client in this process. OpenSSL accepts a key that belongs to another
/// certificate, and only the handshakes of clients would fail then. Returns the certificate that the client got.
fn try_handshake(acceptor: &TlsAcceptor) -> Result<Certificate, String> {
    let mut builder = TlsConnector::builder();
    trust_anybody(&mut builder);
    let connector = builder.build().map_err(|e| e.to_string())?;
    let [client, server] = sockets().map_err(|e| format!("the certificate cannot be tested: {e}"))?;
    let failed = |e: native_tls::Error| e.to_string();
    let mut client = connector.connect("localhost", client);
    let mut server = acceptor.accept(server);
    // In each round both sides continue; TLS needs at most three.
    for _ in 0..10 {
        if let (Ok(client), Ok(_)) = (&client, &server) {
            let certificate = client.peer_certificate().and_then(|c| c.map(|c| c.to_der()).transpose());
            let der = certificate.map_err(failed)?.ok_or("the TLS library did not send a certificate")?;
            return Certificate::parse(der);
        }
        server = match server {
            Err(HandshakeError::WouldBlock(more)) => more.handshake(),
            Err(HandshakeError::Failure(e)) => return Err(failed(e)),
            done => done,
        };
        client = match client {
            Err(HandshakeError::WouldBlock(more)) => more.handshake(),
            Err(HandshakeError::Failure(e)) => return Err(failed(e)),
            done => done,
        };
    }
    Err("the TLS library did not complete a handshake with itself".to_owned())
}

fn sockets() -> io::Result<[UnixStream; 2]> {
    let (client, server) = UnixStream::pair()?;
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    Ok([client, server])
}
