//! Each message to all, the usual way with tokio: a broadcast channel, and a task for each connection that sends on.

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast,
};
use tungstenite::{Message, protocol::WebSocketConfig};

pub(super) fn serve(port: u16) -> Result<()> {
    super::runtime()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let (all, _) = broadcast::channel(1024);
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            tokio::spawn(fan(socket, all.clone(), all.subscribe()));
        }
    })
}

async fn fan(socket: TcpStream, all: broadcast::Sender<Message>, mut news: broadcast::Receiver<Message>) {
    // Receivers get little: the default read buffer, 128 KiB each, would only cost memory.
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let Ok(ws) = tokio_tungstenite::accept_async_with_config(socket, Some(config)).await else { return };
    let (mut out, mut incoming) = ws.split();
    loop {
        tokio::select! {
            message = incoming.next() => match message {
                Some(Ok(message)) if message.is_text() || message.is_binary() => {
                    let _ = all.send(message);
                }
                Some(Ok(_)) => {}
                _ => return,
            },
            message = news.recv() => {
                let Ok(message) = message else { return };
                if out.send(message).await.is_err() {
                    return;
                }
            }
        }
    }
}
