//! fastwebsockets as its examples have it: hyper for the opening handshake, then frames collected to messages.

use anyhow::Result;
use bytes::Bytes;
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError, upgrade};
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
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
                    None => http(socket).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(socket).await {
                            http(stream).await;
                        }
                    }
                }
            });
        }
    })
}

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    // It fails only when the client has left.
    let _ =
        http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(open)).with_upgrades().await;
}

async fn open(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade::upgrade(&mut request)?;
    tokio::spawn(echo(upgraded));
    Ok(response)
}

async fn echo(upgraded: upgrade::UpgradeFut) {
    let Ok(ws) = upgraded.await else { return };
    let mut ws = FragmentCollector::new(ws);
    while let Ok(frame) = ws.read_frame().await {
        if frame.opcode == OpCode::Close {
            return;
        }
        if matches!(frame.opcode, OpCode::Text | OpCode::Binary) && ws.write_frame(frame).await.is_err() {
            return;
        }
    }
}
