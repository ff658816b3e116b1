#![cfg(feature = "__tls")]
//! What is said of what was chosen for TLS, where the library does not know it or is not there.

mod common;

use common::{folder::Folder, identity};
use switchboard::{Server, ServerError, TlsBackend, TlsClientCa, TlsIdentity, TlsVersion};

/// What only rustls can do.
fn choices() -> Vec<(&'static str, TlsIdentity)> {
    let ca = TlsClientCa::from_pem_file("certs/ca.pem").unwrap();
    vec![
        ("TLS 1.3", identity().with_min_version(TlsVersion::Tls13)),
        ("clients for certificates", identity().with_client_ca(ca.clone())),
        ("clients for certificates", identity().with_client_ca(ca.optional())),
        ("only one certificate", identity().with_other(identity())),
    ]
}

#[test]
fn what_native_tls_does_not_know_is_refused_at_bind() {
    for (words, identity) in choices() {
        let identity = identity.with_backend(TlsBackend::NativeTls);
        let error = Server::builder().listen_tls("127.0.0.1:0", identity).bind().unwrap_err();
        assert!(matches!(error, ServerError::Tls(_)), "{error:?}");
        let text = error.to_string();
        if TlsBackend::NativeTls.is_available() {
            for word in
                ["certs/server.pem with certs/server.key: ", words, "native-tls", "--tls-backend rustls"]
            {
                assert!(text.contains(word), "{word}: {text}");
            }
        } else {
            assert!(text.contains("without native-tls") && text.contains("feature `tls`"), "{text}");
        }
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn a_library_that_is_not_there_is_refused_at_bind() {
    for (_, identity) in choices() {
        let bound =
            Server::builder().listen_tls("127.0.0.1:0", identity.with_backend(TlsBackend::Rustls)).bind();
        if TlsBackend::Rustls.is_available() {
            assert!(bound.is_ok(), "{bound:?}");
        } else {
            let text = bound.unwrap_err().to_string();
            assert!(text.contains("without rustls") && text.contains("feature `rustls`"), "{text}");
        }
    }
}

#[test]
fn a_ca_that_is_none_is_called_by_name() {
    let folder = Folder::new();
    for (file, words) in [
        ("certs/nothing.pem", "cannot read certs/nothing.pem"),
        ("certs/server.key", "certs/server.key: there is no PEM certificate"),
        (&folder.write("empty.pem", ""), "empty.pem: there is no PEM certificate"),
    ] {
        let text = TlsClientCa::from_pem_file(file).unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    }
}
