//! The steps from a URL to an open connection: the socket, the proxy, TLS, the opening handshake. On the caller's thread.

use std::{net::SocketAddr, sync::Arc};

use data_encoding::BASE64;
use http::{StatusCode, header};

use super::{
    Client, ClientBuilder,
    dial::{connect_tcp, connect_unix, resolve},
    error::{ClientError, ConnectStep},
    response::HandshakeResponse,
    runtime,
    url::{Place, Target},
    wire::Wire,
};
#[cfg(feature = "__tls")]
use crate::error::TlsError;
use crate::{
    clock::Moment,
    codec::{Deflate, Stream},
    connection::{About, AdoptedStream, Extras, Socket},
    deadline::Deadline,
    http::Upgrade,
    id::{NodeId, WebSocketId},
    shown::Shown,
};

/// What the opening handshake came to.
struct Agreed {
    response: HandshakeResponse,
    subprotocol: Option<String>,
    deflate: Option<Deflate>,
}

/// Over this stream, if there is one.
pub(super) fn open(builder: &ClientBuilder, stream: Option<AdoptedStream>) -> Result<Client, ClientError> {
    let target = builder.target.as_ref().ok_or_else(|| ClientError::config("there is no URL"))?;
    let deadline = Deadline::after(builder.connect_timeout);
    let (mut wire, peer) = connect(builder, target, stream, deadline)?;
    let agreed = handshake(builder, target, &mut wire)?;
    let extras = Extras { subprotocol: agreed.subprotocol.map(Into::into), ..Extras::default() };
    let about = Box::new(About {
        id: WebSocketId::random(NodeId::new(0)),
        session_id: None,
        path: target.path.as_str().into(),
        peer,
        route: None,
        user_agent: None,
        extras: extras.boxed(),
        opened: Moment::START,
        shared: false,
        overflow: builder.overflow,
        deflate: agreed.deflate,
    });
    let Wire { socket, stream, .. } = wire;
    let connection =
        runtime::connection(about, socket, stream, builder.limits.clone()).map_err(ClientError::Io)?;
    log::debug!("{}: connected to {}", connection.id().short(), Shown(&target.host));
    Ok(Client::new(connection, agreed.response, builder.read_timeout))
}

/// A socket that reaches the server, with TLS to come where the URL wants it.
fn connect(
    builder: &ClientBuilder,
    target: &Target,
    stream: Option<AdoptedStream>,
    deadline: Deadline,
) -> Result<(Wire, Option<SocketAddr>), ClientError> {
    let (socket, peer) = match stream {
        Some(stream) => {
            let peer = stream.peer();
            (stream.into_socket().map_err(ClientError::Io)?, peer)
        }
        None => dial(builder, target, deadline)?,
    };
    let mut wire = Wire {
        socket: Arc::new(socket),
        stream: Stream::plain(),
        deadline,
        step: ConnectStep::Handshake,
        max_head: builder.limits.max_head,
    };
    if let (Place::Tcp(host, port), Some(proxy)) = (&target.place, &builder.proxy) {
        proxy.connect_to(host, *port, &mut wire)?;
    }
    if target.is_secure
        && let Place::Tcp(host, _) = &target.place
    {
        secure(builder, host, &mut wire)?;
    }
    wire.step = ConnectStep::Handshake;
    Ok((wire, peer))
}

/// A socket that reaches the server, or the proxy if there is one.
fn dial(
    builder: &ClientBuilder,
    target: &Target,
    deadline: Deadline,
) -> Result<(Socket, Option<SocketAddr>), ClientError> {
    let (host, port) = match (&target.place, &builder.proxy) {
        (Place::Unix(path), _) => return Ok((connect_unix(path, deadline)?, None)),
        (Place::Tcp(host, port), None) => (host, *port),
        (Place::Tcp(..), Some(proxy)) => (&proxy.host, proxy.port),
    };
    let (socket, address) = connect_tcp(&resolve(host, port, deadline)?, deadline)?;
    Ok((socket, Some(address)))
}

/// The TLS handshake.
#[cfg(feature = "__tls")]
fn secure(builder: &ClientBuilder, host: &str, wire: &mut Wire) -> Result<(), ClientError> {
    let connector = builder.tls.connector().map_err(ClientError::Tls)?;
    if !wire.stream.input().is_empty() {
        return Err(ClientError::handshake("the proxy has sent more than its answer"));
    }
    wire.step = ConnectStep::Tls;
    wire.stream = Stream::tls_client(&connector, host)
        .map_err(|failure| ClientError::Tls(TlsError::new(failure.text)))?;
    wire.secure()
}

#[cfg(not(feature = "__tls"))]
fn secure(_: &ClientBuilder, _: &str, _: &mut Wire) -> Result<(), ClientError> {
    Err(ClientError::config("wss:// needs the feature tls or rustls"))
}

fn handshake(builder: &ClientBuilder, target: &Target, wire: &mut Wire) -> Result<Agreed, ClientError> {
    let key = key()?;
    let offer = builder.compression.offer();
    let upgrade = Upgrade {
        host: &target.host,
        path: &target.path,
        key: &key,
        subprotocols: &builder.subprotocols,
        extensions: offer.as_deref(),
        headers: &builder.headers,
    };
    upgrade.write(wire.stream.output());
    let head = wire.exchange()?;
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(ClientError::Refused(wire.refusal(head)));
    }
    let subprotocol = upgrade.check(&head).map_err(ClientError::handshake)?;
    let extensions = head.headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS);
    let deflate = builder.compression.answered(extensions).map_err(ClientError::handshake)?;
    let response = HandshakeResponse { status: head.status, headers: head.headers, body: Vec::new() };
    Ok(Agreed { response, subprotocol, deflate })
}

/// A new one for each connection (RFC 6455, section 4.1).
fn key() -> Result<String, ClientError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| ClientError::Io(e.into()))?;
    Ok(BASE64.encode(&bytes))
}
