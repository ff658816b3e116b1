//! WebSockets for a program that has an HTTP server already, here `tiny_http`.
//!
//! tiny_http gives up a connection as one object, which cannot be read from while it is written to. So the program accepts:
//! connections that ask for a WebSocket are adopted, the others go on to tiny_http.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use switchboard::{Request, Server, ServerHandle, ServerResult, WebSocket, WebSocketServer};

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>tiny_http and a WebSocket</title>
<script>
  const ws = new WebSocket(`ws://${location.host}/echo`);
  ws.onopen = () => ws.send("echoed");
  ws.onmessage = (event) => { document.body.textContent = event.data };
</script><body>"#;

struct Echo;

impl WebSocketServer for Echo {
    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        for message in ws.messages() {
            ws.write(message)?;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    // The program as it was before, except that others cannot reach its HTTP server any more.
    let pages = tiny_http::Server::http("127.0.0.1:0")?;
    let inner = pages.server_addr().to_ip().ok_or("no address")?;
    thread::spawn(move || {
        for request in pages.incoming_requests() {
            let html = tiny_http::Header::from_bytes("Content-Type", "text/html").expect("a header");
            let _ = request.respond(tiny_http::Response::from_string(PAGE).with_header(html));
        }
    });

    let server = Server::builder().route("/echo", || Echo).bind()?; // it needs no address of its own
    let websockets = server.handle();
    thread::spawn(move || server.run());
    let listener = TcpListener::bind(address)?;
    println!("listening on http://{}/", listener.local_addr()?);
    for stream in listener.incoming().flatten() {
        let websockets = websockets.clone();
        thread::spawn(move || accept(stream, &websockets, inner));
    }
    Ok(())
}

fn accept(mut stream: TcpStream, websockets: &ServerHandle, pages: SocketAddr) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (mut bytes, mut more) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut more)?;
        bytes.extend_from_slice(&more[..n]);
        match Request::parse(&bytes) {
            Ok(None) if n > 0 && bytes.len() < 16 * 1024 => {}
            Ok(Some((request, length))) if request.header("upgrade").is_some() => {
                websockets.adopt(stream, request, &bytes[length..]);
                return Ok(());
            }
            _ => break, // tiny_http answers it, whatever it is
        }
    }
    let mut inside = TcpStream::connect(pages)?;
    inside.write_all(&bytes)?;
    let (mut from, mut to) = (stream.try_clone()?, inside.try_clone()?);
    thread::spawn(move || io::copy(&mut from, &mut to).and_then(|_| to.shutdown(Shutdown::Write)));
    io::copy(&mut inside, &mut stream)?;
    stream.shutdown(Shutdown::Both)
}
