//! MODEL, sections 1 and 4: nothing that `on_client_message` does with its connection waits, on a worker or on the gateway.
#![cfg(feature = "__tls")]
mod common;

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use common::{PATIENCE, SCHEMES, TestServer, next_message, read_close, serve};
use switchboard::{
    Handled, Limits, Message, Opening, Overflow, Refusal, ServerResult, WebSocket, WebSocketServer,
};
use tungstenite::Message as Sent;

/// A call that waits for the client takes longer: until the write timeout, or for ever.
const SOON: Duration = Duration::from_secs(8);

/// More than a socket takes of a client that does not read.
const MANY: usize = 10_000;
const LARGE: usize = 100_000;

/// In MiB: more than a socket takes, and less than fits into the queue.
const LOTS: usize = 16;

/// Does what its client says, and tells the test what came of it.
#[derive(Clone)]
struct Obedient {
    overflow: Overflow,
    told: Arc<Mutex<mpsc::Sender<String>>>,
}

impl WebSocketServer for Obedient {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        opening.set_overflow(self.overflow);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        let result = match message.as_text().unwrap_or_default() {
            "leave" => return Handled::No,
            "echo" => return ws.write(message).map_or(Handled::No, |()| Handled::Yes),
            "flood" => flood(ws).map_or_else(|e| format!("{e:?}"), |()| "no bound".into()),
            "flush" => {
                for _ in 0..LOTS {
                    ws.write(vec![b'x'; 1 << 20]).unwrap();
                }
                format!("{:?}", ws.flush())
            }
            "messages" => {
                format!("{:?}", ws.messages().map(|left| left.as_text().unwrap().len()).collect::<Vec<_>>())
            }
            "open" => {
                let opened = ws.hub().open_server(ws.websocket_id()).unwrap();
                for _ in 0..LOTS {
                    opened.write(vec![b'x'; 1 << 20]).unwrap();
                }
                format!("{:?} {:?}", opened.flush(), opened.read_message(PATIENCE))
            }
            other => panic!("{other}"),
        };
        self.told.lock().unwrap().send(result).unwrap();
        Handled::Yes
    }
}

fn flood(ws: &WebSocket) -> switchboard::Result<()> {
    (0..MANY).try_for_each(|_| ws.write("x".repeat(LARGE)))
}

fn serve_obedient(
    workers: usize,
    overflow: Overflow,
    max_queue_bytes: usize,
) -> (TestServer, mpsc::Receiver<String>) {
    let (tx, told) = mpsc::channel();
    let app = Obedient { overflow, told: Arc::new(Mutex::new(tx)) };
    let mut limits = Limits::default();
    limits.workers = workers;
    limits.max_queue_bytes = Some(max_queue_bytes);
    let server = serve(move |builder| builder.limits(limits).route("/", move || app.clone()));
    (server, told)
}

#[test]
fn a_full_queue_is_an_error_on_an_open_connection() {
    for workers in [0, 2] {
        let (server, told) = serve_obedient(workers, Overflow::DropNewest, 1 << 20);
        for scheme in SCHEMES {
            let mut client = server.connect(scheme, "/");
            client.send(Sent::text("flood")).unwrap();
            assert_eq!(told.recv_timeout(SOON).unwrap(), "QueueFull", "{workers} workers");
            // It is open, and loses only what did not fit.
            client.send(Sent::text("echo")).unwrap();
            while next_message(&mut client) != Sent::text("echo") {}
            client.close(None).unwrap();
            assert_eq!(read_close(&mut client).0, 1005);
        }
    }
}

#[test]
fn or_ends_it_if_it_is_to() {
    for workers in [0, 2] {
        let (server, told) = serve_obedient(workers, Overflow::Disconnect, 1 << 20);
        for scheme in SCHEMES {
            let mut client = server.connect(scheme, "/");
            client.send(Sent::text("flood")).unwrap();
            let error = told.recv_timeout(SOON).unwrap();
            assert!(error.starts_with("Closed(CloseReason(1013 by the server"), "{error}");
            assert_eq!(read_close(&mut client).0, 1013);
        }
    }
}

#[test]
fn a_flush_sends_what_the_client_takes() {
    for workers in [0, 1] {
        let (server, told) = serve_obedient(workers, Overflow::Disconnect, 64 << 20);
        for scheme in SCHEMES {
            let mut client = server.connect(scheme, "/");
            client.send(Sent::text("flush")).unwrap();
            assert_eq!(told.recv_timeout(SOON).unwrap(), "Ok(())", "{workers} workers");
            let mut other = server.connect(scheme, "/");
            other.send(Sent::text("echo")).unwrap();
            assert_eq!(next_message(&mut other), Sent::text("echo"), "while the first one does not read");
            for _ in 0..LOTS {
                assert_eq!(next_message(&mut client).len(), 1 << 20);
            }
        }
    }
}

#[test]
fn messages_are_those_that_were_left() {
    for workers in [0, 1] {
        let (server, told) = serve_obedient(workers, Overflow::Disconnect, 1 << 20);
        for scheme in SCHEMES {
            let mut client = server.connect(scheme, "/");
            for (text, left) in [("messages", "[]"), ("leave", ""), ("leave", ""), ("messages", "[5, 5]")] {
                client.send(Sent::text(text)).unwrap();
                if !left.is_empty() {
                    assert_eq!(told.recv_timeout(SOON).unwrap(), left, "{workers} workers");
                }
            }
        }
    }
}

#[test]
fn what_the_gateway_opens_by_its_id_does_not_wait_either() {
    let (server, told) = serve_obedient(0, Overflow::Disconnect, 64 << 20);
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        client.send(Sent::text("open")).unwrap();
        assert_eq!(told.recv_timeout(SOON).unwrap(), "Ok(()) Err(Timeout)");
        for _ in 0..LOTS {
            assert_eq!(next_message(&mut client).len(), 1 << 20);
        }
    }
}
