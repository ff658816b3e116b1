//! A page and a socket on one port, dropped into a threaded program that has a loop of its own.
//!
//! The program counts something. The page shows the count, and its socket reports each change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use switchboard::{Response, Server, ServerResult, WebSocket, WebSocketServer};

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>Counter</title>
<h1 id="count">COUNT</h1>
<script>
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const ws = new WebSocket(`${scheme}//${location.host}/count`);
  ws.onmessage = (event) => { document.getElementById("count").textContent = event.data };
  ws.onclose = (event) => { document.title = `closed: ${event.code}` };
</script>"#;

/// Tells its client whenever the count has changed.
struct Report(Arc<AtomicUsize>);

impl WebSocketServer for Report {
    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        let mut last = None;
        loop {
            let count = self.0.load(Relaxed);
            if last.replace(count) != Some(count) {
                ws.write(count.to_string())?;
            }
            // Nothing is expected from the client. Reading waits, answers pings, and sees the close.
            match ws.read_message(Duration::from_millis(100)) {
                Err(e) if !e.is_timeout() => return Err(e.into()),
                _ => {}
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let count = Arc::new(AtomicUsize::new(0));
    let (for_page, for_socket) = (count.clone(), count.clone());
    let server = Server::builder()
        .listen(address)
        .http("/", move |_| Response::html(PAGE.replace("COUNT", &for_page.load(Relaxed).to_string())))
        .route("/count", move || Report(for_socket.clone()))
        .bind()?
        .spawn()?;
    println!("listening on http://{}/", server.local_addrs()[0]);

    // The program as it was before it had WebSockets.
    let work: usize = std::env::args().nth(2).map_or(Ok(usize::MAX), |n| n.parse())?;
    for _ in 0..work {
        count.fetch_add(1, Relaxed);
        thread::sleep(Duration::from_millis(250));
    }

    server.shutdown(Duration::from_secs(5))?; // it would end as well when it is dropped
    Ok(())
}
