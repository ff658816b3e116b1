//! Clients that are not served: the accepting thread tells them why (503 or 429), and closes their sockets a little later, so
//! that they can read it. It never waits for them.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use http::{StatusCode, header};

use super::{listener::Security, shared::NoSlot};
use crate::{
    connection::Socket,
    http::{Body, CommonHeaders, Refusal, Response},
};

/// How long a rejected client has to read its answer.
const LINGER: Duration = Duration::from_secs(1);

/// So many rejected sockets are kept for that at most.
const MOST_REJECTED: usize = 32;

/// Sockets that were told why, and since when.
#[derive(Debug, Default)]
pub(super) struct Rejected(VecDeque<(Instant, Socket)>);

impl Rejected {
    /// Tells a client why it is not served, and keeps its socket for a while.
    pub(super) fn add(
        &mut self,
        socket: Socket,
        security: &Security,
        why: Response,
        headers: &CommonHeaders,
    ) {
        send(&socket, security, why, headers);
        if self.0.len() == MOST_REJECTED
            && let Some((_, oldest)) = self.0.pop_front()
        {
            close(oldest);
        }
        self.0.push_back((Instant::now(), socket));
    }

    /// Closes the sockets of those that have had their time. Returns when the next one will have.
    pub(super) fn close_overdue(&mut self) -> Option<Duration> {
        while let Some((since, _)) = self.0.front() {
            let left = LINGER.saturating_sub(since.elapsed());
            if !left.is_zero() {
                return Some(left);
            }
            self.0.pop_front().into_iter().for_each(|(_, socket)| close(socket));
        }
        None
    }
}

impl Drop for Rejected {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|(_, socket)| close(socket));
    }
}

/// Tells a client why it is not served, and closes its socket at once, for there is no descriptor left to keep it, or nobody who
/// could.
pub(super) fn reject_at_once(socket: Socket, security: &Security, why: Response, headers: &CommonHeaders) {
    send(&socket, security, why, headers);
    close(socket);
}

/// What a client is told for which there is no place. 429 is for what the client itself may change; a proxy in front of the
/// server does not take it for a failure of the server, as it may a 503.
pub(super) fn refusal(why: NoSlot) -> Refusal {
    let (status, reason) = match why {
        NoSlot::OfAll => (StatusCode::SERVICE_UNAVAILABLE, "too many connections"),
        NoSlot::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, "no memory or thread is left"),
        NoSlot::OfAddress => (StatusCode::TOO_MANY_REQUESTS, "too many connections from this address"),
    };
    Refusal::new(status, reason).with_header(header::RETRY_AFTER, "5")
}

/// What a client is told that comes too late.
pub(super) fn shutting_down() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server shuts down")
        .with_header(header::RETRY_AFTER, "5")
}

/// Within TLS nothing can be said before its handshake, which would take a thread: there the stream just ends.
fn send(socket: &Socket, security: &Security, why: Response, headers: &CommonHeaders) {
    if !security.is_tls() {
        let (mut bytes, body) = why.into_parts(headers, false);
        if let Body::Bytes(text) = body {
            bytes.extend_from_slice(&text);
        }
        // It fits an empty send buffer, or the client is gone.
        let _ = socket.try_send(&bytes);
    }
    socket.shutdown_write();
}

/// A socket closed with unread input would reset the connection.
fn close(socket: Socket) {
    let _ = socket.try_recv(&mut Vec::with_capacity(16 * 1024));
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        os::unix::net::UnixStream,
        thread::sleep,
    };

    use super::*;

    fn reject(rejected: &mut Rejected) -> UnixStream {
        let (mut client, socket) = UnixStream::pair().unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let why = refusal(NoSlot::OfAll).into();
        rejected.add(socket.into(), &Security::None, why, &CommonHeaders::default());
        client
    }

    fn is_closed(mut client: &UnixStream) -> bool {
        client.write_all(b"x").is_err_and(|e| e.kind() == ErrorKind::BrokenPipe)
    }

    #[test]
    fn a_rejected_client_can_read_why_and_is_closed_when_its_time_is_up() {
        let mut rejected = Rejected::default();
        assert_eq!(rejected.close_overdue(), None);
        let mut client = reject(&mut rejected);
        let mut response = String::new();
        client.read_to_string(&mut response).unwrap();
        assert!(
            response.starts_with("HTTP/1.1 503 ") && response.contains("retry-after: 5\r\n"),
            "{response}"
        );
        while let Some(left) = rejected.close_overdue() {
            assert!(left <= LINGER && !is_closed(&client));
            sleep(left);
        }
        assert!(is_closed(&client));
    }

    #[test]
    fn of_too_many_the_oldest_is_closed() {
        let mut rejected = Rejected::default();
        let clients: Vec<_> = (0..MOST_REJECTED + 3).map(|_| reject(&mut rejected)).collect();
        let open = clients.iter().filter(|client| !is_closed(client)).count();
        assert_eq!(open, MOST_REJECTED);
        assert!(clients[..3].iter().all(is_closed));
        drop(rejected);
        assert!(clients.iter().all(is_closed));
    }
}
