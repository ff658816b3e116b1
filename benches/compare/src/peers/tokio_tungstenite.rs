//! tokio-tungstenite with its defaults, and tokio-native-tls for TLS.

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};

pub(super) fn serve(port: u16, tls: bool) -> Result<()> {
    let acceptor = super::acceptor(tls)?.map(tokio_native_tls::TlsAcceptor::from);
    super::runtime()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                match acceptor {
                    None => echo(socket).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(socket).await {
                            echo(stream).await;
                        }
                    }
                }
            });
        }
    })
}

async fn echo(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let Ok(mut ws) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = ws.next().await {
        if (message.is_text() || message.is_binary()) && ws.send(message).await.is_err() {
            return;
        }
    }
}
