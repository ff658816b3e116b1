//! Both sides over memory, by each library with each.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::{TlsBackend, TlsIdentity, TlsTrust};
#[cfg(feature = "rustls")]
use crate::{TlsClientCa, TlsVersion};

#[cfg(not(target_vendor = "apple"))]
#[path = "../../../tests/common/authority.rs"]
#[allow(dead_code, unreachable_pub, reason = "the integration tests use the rest")]
mod authority;

fn backends() -> impl Iterator<Item = TlsBackend> {
    [TlsBackend::NativeTls, TlsBackend::Rustls].into_iter().filter(|backend| backend.is_available())
}

/// For each library, made once.
static BUNDLED: LazyLock<Vec<(TlsBackend, TlsIdentity, TlsTrust)>> = LazyLock::new(|| {
    let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key").unwrap();
    let trust = TlsTrust::ca_file("certs/ca.pem").unwrap();
    let of = |backend| (backend, identity.clone().with_backend(backend), trust.clone().with_backend(backend));
    backends().map(of).collect()
});

fn identity(backend: TlsBackend) -> TlsIdentity {
    BUNDLED.iter().find(|(other, ..)| *other == backend).unwrap().1.clone()
}

fn trust(backend: TlsBackend) -> TlsTrust {
    BUNDLED.iter().find(|(other, ..)| *other == backend).unwrap().2.clone()
}

fn accept(identity: &TlsIdentity) -> Tls {
    Tls::accept(identity.current().acceptor().unwrap()).unwrap()
}

fn connect(trust: &TlsTrust, name: &str) -> Tls {
    Tls::connect(&trust.connector().unwrap(), name).unwrap()
}

/// Takes what one end has to say to the other one, in pieces of this size.
fn carry(from: &mut Tls, to: &mut Tls, size: usize) -> Result<Vec<u8>, Failure> {
    let mut plain = Vec::new();
    let sealed = std::mem::take(from.sealed_mut());
    for piece in sealed.chunks(size) {
        to.open(&mut piece.to_vec(), &mut plain)?;
    }
    Ok(plain)
}

/// Lets both talk until neither has anything more to say.
fn talk(client: &mut Tls, server: &mut Tls, size: usize) -> Result<(), Failure> {
    while !client.sealed().is_empty() || !server.sealed().is_empty() {
        carry(client, server, size)?;
        carry(server, client, size)?;
    }
    Ok(())
}

/// All that there are of servers and clients.
fn pairs() -> impl Iterator<Item = (TlsBackend, TlsBackend)> {
    backends().flat_map(|server| backends().map(move |client| (server, client)))
}

#[test]
fn each_library_talks_with_each() {
    for (server, client) in pairs() {
        for size in [1, 7, 5000, usize::MAX] {
            let (mut server, mut client) = (accept(&identity(server)), connect(&trust(client), "localhost"));
            assert!(server.is_handshaking() && client.is_handshaking());
            assert!(!client.seal(b"too early").unwrap());
            talk(&mut client, &mut server, size).unwrap();
            assert!(!server.is_handshaking() && !client.is_handshaking());
            let long = if size < 100 { 500 } else { 20_000 };
            for text in [b"short".to_vec(), b"long ".repeat(long), b"short".to_vec()] {
                assert!(client.seal(&text).unwrap());
                assert!(carry(&mut client, &mut server, size).unwrap() == text);
                assert!(server.seal(&text[..1]).unwrap());
                assert!(server.seal(&text[1..]).unwrap());
                assert!(carry(&mut server, &mut client, size).unwrap() == text);
            }
        }
    }
}

#[test]
fn one_end_may_end_before_the_other() {
    for (server, client) in pairs() {
        let (mut server, mut client) = (accept(&identity(server)), connect(&trust(client), "localhost"));
        talk(&mut client, &mut server, usize::MAX).unwrap();
        client.seal(b"last").unwrap();
        client.finish();
        assert_eq!(carry(&mut client, &mut server, usize::MAX).unwrap(), b"last");
        assert!(server.ended() && !client.ended());
        assert!(server.seal(b"answer").unwrap());
        assert_eq!(carry(&mut server, &mut client, usize::MAX).unwrap(), b"answer");
        server.finish();
        assert_eq!(carry(&mut server, &mut client, usize::MAX).unwrap(), b"");
        assert!(client.ended());
        // What comes after it is not looked at.
        server.open(&mut vec![0xff; 100], &mut Vec::new()).unwrap();
    }
}

#[test]
fn a_parked_stream_keeps_no_buffers_and_still_works() {
    for (server, client) in pairs() {
        let (mut server, mut client) = (accept(&identity(server)), connect(&trust(client), "localhost"));
        talk(&mut client, &mut server, usize::MAX).unwrap();
        for _ in 0..2 {
            for text in [b"asked ".as_slice(), &b"more".repeat(10_000)] {
                client.seal(text).unwrap();
                assert!(carry(&mut client, &mut server, usize::MAX).unwrap() == text);
                server.seal(text).unwrap();
                assert!(carry(&mut server, &mut client, usize::MAX).unwrap() == text);
            }
            for end in [&mut server, &mut client] {
                end.park();
                assert_eq!(end.held(), 0);
            }
        }
    }
}

#[test]
fn a_client_says_why_it_leaves() {
    for (server, client) in pairs() {
        for (trust, name) in
            [(trust(client), "other.example"), (TlsTrust::system().with_backend(client), "localhost")]
        {
            let (mut server, mut client) = (accept(&identity(server)), connect(&trust, name));
            carry(&mut client, &mut server, usize::MAX).unwrap();
            let failure = carry(&mut server, &mut client, usize::MAX).unwrap_err();
            assert!(failure.text.starts_with("TLS handshake failed: "), "{failure:?}");
            assert!(!client.sealed().is_empty(), "an alert");
            let failure = carry(&mut client, &mut server, usize::MAX).unwrap_err();
            assert!(failure.text.starts_with("TLS handshake failed: "), "{failure:?}");
        }
        let anybody = TlsTrust::danger_any_server().with_backend(client);
        let (mut server, mut client) = (accept(&identity(server)), connect(&anybody, "other.example"));
        talk(&mut client, &mut server, usize::MAX).unwrap();
        assert!(!client.is_handshaking());
    }
}

#[test]
fn garbage_is_answered_with_an_alert_and_ends_it() {
    for (server, client) in pairs() {
        for before in [true, false] {
            let (mut server, mut client) = (accept(&identity(server)), connect(&trust(client), "localhost"));
            if !before {
                talk(&mut client, &mut server, usize::MAX).unwrap();
            }
            let garbage = [&[23, 3, 3, 0, 40][..], &[0x5a; 40]].concat();
            for piece in garbage.chunks(7) {
                let _ = server.open(&mut piece.to_vec(), &mut Vec::new());
            }
            assert!(!server.sealed().is_empty(), "an alert");
            assert!(!before || !server.seal(b"x").unwrap());
            let mut plain = Vec::new();
            let _ = server.open(&mut b"more".to_vec(), &mut plain);
            assert_eq!(plain, b"");
        }
    }
}

#[test]
fn a_message_that_never_ends_is_not_kept_for_ever() {
    for backend in backends() {
        let mut server = accept(&identity(backend));
        // A ClientHello of many bytes, each in a record of its own.
        let hello = [1, 0, 0xff, 0xf0, 3, 3].into_iter().chain(std::iter::repeat(0x5a));
        let fed = hello.take(60_000).try_for_each(|byte| {
            let result = server.open(&mut vec![22, 3, 3, 0, 1, byte], &mut Vec::new());
            assert!(server.held() < 150_000, "{backend:?} {}", server.held());
            result
        });
        // OpenSSL may take them, as it keeps only what is in the records.
        assert!(fed.is_err() || backend == TlsBackend::NativeTls);
    }
}

#[cfg(feature = "rustls")]
#[test]
fn old_versions_can_be_refused() {
    let only = |backend| identity(backend).with_min_version(TlsVersion::Tls13);
    for client in backends() {
        let (mut server, mut client) =
            (accept(&only(TlsBackend::Rustls)), connect(&trust(client), "localhost"));
        talk(&mut client, &mut server, usize::MAX).unwrap();
        assert!(!client.is_handshaking());
    }
    for client in backends().filter(|_| TlsBackend::NativeTls.is_available()) {
        let trust = trust(client).with_min_version(TlsVersion::Tls13);
        let (mut server, mut client) =
            (accept(&identity(TlsBackend::NativeTls)), connect(&trust, "localhost"));
        assert!(talk(&mut client, &mut server, usize::MAX).is_err());
    }
}

#[cfg(all(feature = "rustls", not(target_vendor = "apple")))]
#[test]
fn a_client_shows_its_certificate() {
    let clients = authority::Kind::ca("clients").signed();
    let own = authority::Kind::server("sensor").issued_by(&clients);
    let own = TlsIdentity::from_pem(own.pem().as_bytes(), own.key_pem().as_bytes()).unwrap();
    let ca = TlsClientCa::from_pem(clients.pem().as_bytes()).unwrap();
    for (ca, is_optional) in [(ca.clone(), false), (ca.optional(), true)] {
        let asking = identity(TlsBackend::Rustls).with_client_ca(ca);
        for client in backends() {
            let mut server = accept(&asking);
            let mut with = connect(&trust(client).with_identity(own.clone()), "localhost");
            talk(&mut with, &mut server, usize::MAX).unwrap();
            assert_eq!(server.client_certificates().unwrap().len(), 1);
            assert_eq!(with.client_certificates(), None, "that is the server's");

            let mut server = accept(&asking);
            let mut without = connect(&trust(client), "localhost");
            let result = talk(&mut without, &mut server, usize::MAX);
            assert_eq!(result.is_ok(), is_optional, "{result:?}");
            assert_eq!(server.client_certificates(), None);
        }
    }
}

#[cfg(not(target_vendor = "apple"))]
#[test]
fn a_server_without_a_ca_is_trusted_by_its_own_certificate() {
    use authority::{DAY, Kind};
    let of = |kind: Kind<'_>| kind.signed();
    let old = || Kind { valid: (-3 * DAY, -DAY), ..Kind::ca("box") };
    let early = || Kind { valid: (DAY, 3 * DAY), ..Kind::ca("box") };
    for (shown, name, is_trusted) in [
        (of(Kind::ca("box")), "localhost", true), // as `openssl req -x509` makes it
        (of(Kind::server("box")), "localhost", true),
        (of(Kind::ca("box")), "other.example", false),
        (of(old()), "localhost", false),
        (of(early()), "localhost", false),
    ] {
        let own = TlsIdentity::from_pem(shown.pem().as_bytes(), shown.key_pem().as_bytes()).unwrap();
        let other = of(Kind::ca("box"));
        for (server, client) in pairs() {
            for (pem, is_known) in [(shown.pem(), true), (other.pem(), false)] {
                let trust = TlsTrust::ca(pem.as_bytes()).unwrap().with_backend(client);
                let mut server = accept(&own.clone().with_backend(server));
                let result = talk(&mut connect(&trust, name), &mut server, usize::MAX);
                assert_eq!(
                    result.is_ok(),
                    is_trusted && is_known,
                    "{name} {server:?} {client:?}: {result:?}"
                );
            }
        }
    }
}

proptest! {
    /// Whatever a peer makes of its handshake, in whatever pieces: no panic, and nothing is kept that grows.
    #[test]
    fn a_spoilt_handshake_does_no_harm(
        pair in 0..pairs().count(),
        client_is_spoilt in any::<bool>(),
        spoilt in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        size in prop_oneof![1..50usize, Just(usize::MAX)],
    ) {
        let Some((server, client)) = pairs().nth(pair) else { unreachable!() };
        let (mut server, mut client) = (accept(&identity(server)), connect(&trust(client), "localhost"));
        let mut spoilt = spoilt.into_iter();
        for _ in 0..10 {
            for from_client in [true, false] {
                let (from, to) = if from_client { (&mut client, &mut server) } else { (&mut server, &mut client) };
                if from_client == client_is_spoilt
                    && !from.sealed().is_empty()
                    && let Some((index, byte)) = spoilt.next()
                {
                    let at = index.index(from.sealed().len());
                    from.sealed_mut()[at] = byte;
                }
                let _ = carry(from, to, size);
                prop_assert!(to.held() < 100_000);
            }
            let _ = server.seal(b"x");
        }
        server.finish();
    }
}
