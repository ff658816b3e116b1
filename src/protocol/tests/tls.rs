//! An end within TLS: what it says last, and what the peer's last word is.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use native_tls::{Certificate, TlsConnector};

use super::*;
use crate::TlsIdentity;

/// The server's end, its socket, and a client that does `talk` after its TLS handshake.
fn connected<T: Send + 'static>(
    talk: impl FnOnce(native_tls::TlsStream<UnixStream>) -> T + Send + 'static,
) -> (Driven, UnixStream, std::thread::JoinHandle<T>) {
    let (client, server) = UnixStream::pair().unwrap();
    server.set_read_timeout(Some(20 * SECOND)).unwrap(); // only if something is wrong
    let thread = std::thread::spawn(move || {
        let ca = Certificate::from_pem(&std::fs::read("certs/ca.pem").unwrap()).unwrap();
        let connector = TlsConnector::builder().add_root_certificate(ca).build().unwrap();
        talk(connector.connect("localhost", client).unwrap())
    });
    let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key").unwrap();
    let limits = Arc::new(Limits::default());
    let stream = crate::codec::Stream::tls(identity.current().acceptor().unwrap()).unwrap();
    let codec = Codec::new(Role::Server, stream, &limits, None);
    (Driven::over(Role::Server, codec, &limits, false), server, thread)
}

impl Driven {
    /// Receives from the socket once, and sends what comes of it. False: the peer's stream has ended.
    fn carry(&mut self, socket: &mut UnixStream, hold: Hold) -> bool {
        let mut buffer = [0; 4096];
        let received = socket.read(&mut buffer).unwrap();
        if received == 0 {
            self.receive_end(hold);
        } else {
            self.receive(&buffer[..received], hold);
        }
        let sent = self.taken.len();
        self.pump();
        socket.write_all(&self.taken[sent..]).unwrap();
        if self.ended {
            socket.shutdown(std::net::Shutdown::Write).unwrap();
        }
        received > 0
    }
}

#[test]
fn tls_is_ended_after_the_close_frame_and_before_the_stream() {
    let (mut end, mut socket, client) = connected(|mut tls| {
        tls.write_all(&close_frame(Role::Client, 4001)).unwrap();
        let mut answer = Vec::new();
        tls.read_to_end(&mut answer).unwrap();
        answer
    });
    while !end.ended {
        assert!(end.carry(&mut socket, Hold::Nothing));
    }
    assert_eq!(end.phase(), "draining FIN");
    // The last record is an alert of two bytes: as such (TLS 1.2), or encrypted with its type and a tag of 16 bytes.
    let mut records = &end.taken[..];
    let mut last = (0, 0);
    while let [kind, _, _, high, low, rest @ ..] = records {
        let size = u16::from_be_bytes([*high, *low]);
        last = (*kind, size);
        records = &rest[usize::from(size)..];
    }
    assert!(last.0 == 21 || last == (23, 19), "no close_notify: {last:?}");
    assert_eq!(client.join().unwrap(), close_frame(Role::Server, 4001));
    while !end.protocol.is_over() {
        end.carry(&mut socket, Hold::Nothing);
    }
    assert_eq!(end.reason(), "4001 by them");
}

#[test]
fn the_end_of_tls_is_the_end_of_the_stream() {
    for hold in [Hold::Nothing, Hold::Answers] {
        let (mut end, mut socket, client) = connected(|mut tls| {
            tls.write_all(&frame(Role::Client, 0x81, b"hi")).unwrap();
            tls.shutdown().unwrap();
            // The answer is read, if there is one, before the stream ends.
            let mut answer = Vec::new();
            tls.read_to_end(&mut answer).unwrap();
            answer
        });
        while end.phase() == "open" {
            assert!(end.carry(&mut socket, hold), "seen without FIN");
        }
        let mut answer = Vec::new();
        if hold == Hold::Answers {
            assert_eq!(end.phase(), "ending");
            assert!(end.send("hello".into()).is_none());
            end.poll(Hold::Nothing);
            let sent = end.taken.len();
            end.pump();
            socket.write_all(&end.taken[sent..]).unwrap();
            answer = frame(Role::Server, 0x81, b"hello");
        }
        assert_eq!((end.phase().as_str(), end.reason().as_str(), end.ended), ("over", "1006 broken", true));
        drop(socket);
        assert_eq!(client.join().unwrap(), answer);
    }
}

#[test]
fn broken_tls_is_a_broken_connection() {
    let (mut end, mut socket, client) = connected(|mut tls| {
        tls.write_all(&frame(Role::Client, 0x81, b"hi")).unwrap();
        let _ = tls.read(&mut [0; 1]);
    });
    while end.received.is_empty() {
        end.carry(&mut socket, Hold::Nothing);
    }
    end.receive(&[0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5], Hold::Answers);
    end.pump();
    assert_eq!((end.phase().as_str(), end.reason().as_str()), ("over", "1006 broken"));
    drop(socket);
    client.join().unwrap();
}
