//! An echo over loopback, server and client in one process: `cargo bench`.
//!
//! Quote ratios of one run only: machines differ, and a shared one differs from minute to minute.

use std::{hint::black_box, net::TcpStream, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use switchboard::{
    Handled, Limits, Message, Opening, Refusal, Server, ServerError, ServerHandle, ServerResult, WebSocket,
    WebSocketServer,
};
use tungstenite::Message as Sent;

/// With a thread for its connection, or shared, and then handled by the gateway itself.
struct Echo {
    shared: bool,
}

impl WebSocketServer for Echo {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(self.shared);
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        if !self.shared {
            for message in ws.messages() {
                ws.write(message)?;
            }
        }
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        let _ = ws.write(message);
        Handled::Yes
    }
}

type Client = tungstenite::WebSocket<TcpStream>;

fn serve(shared: bool) -> (ServerHandle, std::thread::JoinHandle<Result<(), ServerError>>, Client) {
    let mut limits = Limits::default();
    limits.workers = 0;
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .limits(limits)
        .route("/", move || Echo { shared })
        .bind()
        .expect("a port");
    let address = server.local_addrs()[0].tcp().expect("TCP");
    let (handle, thread) = (server.handle(), std::thread::spawn(move || server.run()));
    let socket = TcpStream::connect(address).expect("a server");
    socket.set_nodelay(true).expect("an open socket");
    let (client, _) = tungstenite::client(format!("ws://{address}/"), socket).expect("a handshake");
    (handle, thread, client)
}

fn echo(c: &mut Criterion) {
    for shared in [false, true] {
        let (handle, thread, mut client) = serve(shared);
        let mut group = c.benchmark_group(if shared { "shared" } else { "synchronous" });
        for (size, in_flight) in [(64, 1), (64, 16), (16 * 1024, 1)] {
            group.throughput(Throughput::Elements(in_flight));
            group.bench_function(BenchmarkId::new(format!("{size} bytes"), in_flight), |bencher| {
                let message = Sent::binary(vec![7; size]);
                bencher.iter(|| {
                    for _ in 0..in_flight {
                        client.write(message.clone()).expect("an open connection");
                    }
                    client.flush().expect("an open connection");
                    for _ in 0..in_flight {
                        black_box(client.read().expect("an echo"));
                    }
                });
            });
        }
        group.finish();
        drop(client);
        handle.shutdown(Duration::from_secs(1));
        thread.join().expect("no panic").expect("an orderly end");
    }
}

criterion_group!(benches, echo);
criterion_main!(benches);
