//! The steps from a URL to an open connection: the socket, the proxy, TLS, the opening handshake. On the caller's thread.

use std::sync::Arc;

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
use crate::{
    clock::Moment,
    codec::{Deflate, Stream},
    connection::{About, Extras},
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

pub(super) fn open(builder: &ClientBuilder) -> Result<Client, ClientError> {
    let target = builder.target.as_ref().ok_or_else(|| ClientError::config("there is no URL"))?;
    let deadline = Deadline::after(builder.connect_timeout);
    let (mut wire, peer) = connect(builder, target, deadline)?;
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
    deadline: Deadline,
) -> Result<(Wire, Option<std::net::SocketAddr>), ClientError> {
    let wire = |socket| Wire {
        socket: Arc::new(socket),
        stream: Stream::plain(),
        deadline,
        step: ConnectStep::Handshake,
        max_head: builder.limits.max_head,
    };
    let (mut wire, peer) = match (&target.place, &builder.proxy) {
        (Place::Unix(_), Some(_)) => {
            return Err(ClientError::config("a Unix socket is not reached through a proxy"));
        }
        (Place::Unix(path), None) => (wire(connect_unix(path, deadline)?), None),
        (Place::Tcp(host, port), None) => {
            let (socket, address) = connect_tcp(&resolve(host, *port, deadline)?, deadline)?;
            (wire(socket), Some(address))
        }
        (Place::Tcp(host, port), Some(proxy)) => {
            let addresses = resolve(&proxy.host, proxy.port, deadline)?;
            let (socket, address) = connect_tcp(&addresses, deadline)?;
            let mut wire = wire(socket);
            proxy.connect_to(host, *port, &mut wire)?;
            (wire, Some(address))
        }
    };
    if target.is_secure
        && let Place::Tcp(host, _) = &target.place
    {
        secure(builder, host, &mut wire)?;
    }
    wire.step = ConnectStep::Handshake;
    Ok((wire, peer))
}

/// The TLS handshake.
#[cfg(feature = "__tls")]
fn secure(builder: &ClientBuilder, host: &str, wire: &mut Wire) -> Result<(), ClientError> {
    let connector = builder.tls.connector().map_err(|e| ClientError::Tls(e.to_string().into()))?;
    if !wire.stream.input().is_empty() {
        return Err(ClientError::handshake("the proxy has sent more than its answer"));
    }
    wire.step = ConnectStep::Tls;
    wire.stream = Stream::tls_client(&connector, host).map_err(|e| ClientError::Tls(e.text.into()))?;
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
