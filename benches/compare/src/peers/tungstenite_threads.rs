//! tungstenite without a runtime: a blocking thread for each connection.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use anyhow::Result;
use tungstenite::protocol::WebSocketConfig;

pub(super) fn serve(port: u16, tls: bool) -> Result<()> {
    let acceptor = super::acceptor(tls)?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    for socket in listener.incoming() {
        let (socket, acceptor) = (socket?, acceptor.clone());
        socket.set_nodelay(true)?;
        // Enough for both handshakes; what is not used takes no memory.
        thread::Builder::new().stack_size(128 * 1024).spawn(move || match acceptor {
            None => echo(socket),
            Some(acceptor) => {
                if let Ok(stream) = acceptor.accept(socket) {
                    echo(stream);
                }
            }
        })?;
    }
    Ok(())
}

fn echo(stream: impl Read + Write) {
    // The default read buffer, 128 KiB each, is slower with small messages and no faster with large ones.
    let config = WebSocketConfig::default().read_buffer_size(8192);
    let Ok(mut ws) = tungstenite::accept_with_config(stream, Some(config)) else { return };
    while let Ok(message) = ws.read() {
        if (message.is_text() || message.is_binary()) && ws.send(message).is_err() {
            return;
        }
    }
}
