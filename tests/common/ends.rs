//! How connections end: what `on_post_server` gets, and what the client sees.

use std::{
    io::{Read, Write},
    net::Shutdown,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver},
    },
    time::Duration,
};

use switchboard::{
    CloseReason, Closed, ClosedBy, Limits, Opening, ServerResult, SessionId, WebSocket, WebSocketId,
};

use super::{PATIENCE, Stream, TestServer, frame, full_app, serve};

/// One call of `on_post_server`.
#[derive(Debug)]
pub struct End {
    pub id: WebSocketId,
    pub session: Option<SessionId>,
    pub reason: CloseReason,
    pub duration: Duration,
}

impl From<&Closed> for End {
    fn from(closed: &Closed) -> Self {
        Self {
            id: *closed.websocket_id(),
            session: closed.session_id().cloned(),
            reason: closed.reason().clone(),
            duration: closed.duration(),
        }
    }
}

/// The ends of a server's connections, in order.
pub struct Ends {
    ends: Receiver<End>,
    failures: Arc<Mutex<Vec<String>>>,
}

/// What a handler panics with on purpose.
pub const ON_PURPOSE: &str = "on purpose";

/// A server that runs `handler` at all paths, and reports how each connection ended.
///
/// An assertion that fails in the handler fails the test. Without this, a panic after the close would not be seen.
pub fn serve_ends<F>(limits: Limits, handler: F) -> (TestServer, Ends)
where
    F: Fn(&mut WebSocket) -> ServerResult + Clone + Send + Sync + 'static,
{
    let (tx, ends) = mpsc::channel();
    let failures = Arc::<Mutex<Vec<String>>>::default();
    let failed = failures.clone();
    let server = serve(|builder| {
        builder.limits(limits).route("/*", move || {
            let (tx, handler, failed) = (tx.clone(), handler.clone(), failed.clone());
            let watched = move |ws: &mut WebSocket| {
                catch_unwind(AssertUnwindSafe(|| handler(ws))).unwrap_or_else(|panic| {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    let text = text.or_else(|| panic.downcast_ref().copied()).unwrap_or("a panic");
                    if text != ON_PURPOSE {
                        failed.lock().unwrap().push(text.to_owned());
                    }
                    resume_unwind(panic)
                })
            };
            let after = move |closed: &Closed| drop(tx.send(closed.into()));
            full_app(|_: &mut Opening| Ok(()), watched, after)
        })
    });
    (server, Ends { ends, failures })
}

impl Ends {
    pub fn next(&self) -> End {
        let end = self.ends.recv_timeout(PATIENCE).expect("on_post_server is called");
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "in the handler: {failures:?}");
        end
    }

    /// Code, text and side of the next end.
    pub fn reason(&self) -> (u16, String, ClosedBy) {
        reason_parts(&self.next().reason)
    }

    /// Whether there are no more ends. Only useful after the server has ended.
    pub fn none(&self) -> bool {
        self.ends.try_recv().is_err()
    }
}

/// Code, text, and which side began.
pub fn reason_parts(reason: &CloseReason) -> (u16, String, ClosedBy) {
    (reason.code().0, reason.text().to_owned(), reason.by())
}

/// A client's close frame.
pub fn close_frame(code: u16, text: &str) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes()[..], text.as_bytes()].concat())
}

impl Stream {
    /// Reads the close frame, which has to come next, answers it with its own code, and reads the end of the stream, which
    /// must not be a reset.
    pub fn answer_close_and_end(&mut self) -> (u16, String) {
        let (first, payload) = self.read_frame();
        assert_eq!(first, 0x88, "no close frame, but {payload:?}");
        self.write_all(&frame(0x88, payload.get(..2).unwrap_or_default())).unwrap();
        assert_eq!(self.read(&mut [0; 1]).unwrap(), 0, "the stream goes on");
        let _ = self.tcp().shutdown(Shutdown::Write);
        let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
        (code, String::from_utf8(payload.get(2..).unwrap_or_default().to_vec()).unwrap())
    }

    /// Reads the close frame, which has to come next, and the end of the stream, and then ends the client's side.
    pub fn take_close(&mut self) -> (u16, String) {
        let close = self.read_close_and_end();
        let _ = self.tcp().shutdown(Shutdown::Write); // fails if the socket is already closed
        close
    }

    /// Ends the client's side of the stream: with FIN, and over TLS with close_notify before it.
    pub fn half_close(&mut self) {
        if let Self::Tls(tls) = self {
            tls.shutdown().unwrap();
        }
        self.tcp().shutdown(Shutdown::Write).unwrap();
    }

    /// Reads until the stream ends, in order or by a reset. Fails if it does not end.
    pub fn read_to_any_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Err(e) = self.read_to_end(&mut bytes) {
            use std::io::ErrorKind::{TimedOut, WouldBlock};
            assert!(!matches!(e.kind(), TimedOut | WouldBlock), "the stream does not end");
        }
        bytes
    }
}
