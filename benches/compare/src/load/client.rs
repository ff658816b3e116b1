//! A client's side of the protocol, as little of it as a load needs (RFC 6455).

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use native_tls::{TlsConnector, TlsStream};
use socket2::{Domain, SockRef, Socket, Type};

use super::{Options, Target};

/// The example of RFC 6455, section 1.3, and what a server makes of it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A source address has some 28,000 ports, and to find a free one takes long when most are taken. With more connections
/// than the first, each address has as many as the second.
const ONE_SOURCE: usize = 10_000;
const PER_SOURCE: usize = 5_000;

/// How long all connections of a load may take to open.
const ALL_OPEN: Duration = Duration::from_secs(60);

const PATIENCE: Duration = Duration::from_secs(20);

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens connections, all alike.
pub(super) struct Dialer<'a> {
    target: &'a Target,
    /// Whether there will be more connections than one source address can have.
    spread: bool,
    connector: TlsConnector,
    request: String,
}

impl<'a> Dialer<'a> {
    pub(super) fn new(options: &'a Options) -> Result<Self> {
        let target = &options.url;
        let connector = TlsConnector::builder()
            .disable_built_in_roots(true) // loading them takes longer than the handshake
            .danger_accept_invalid_certs(true)
            .danger_accept_invalid_hostnames(true)
            .build()?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n",
            target.path, target.address
        );
        Ok(Self { target, spread: options.conns > ONE_SOURCE, connector, request })
    }

    /// All connections of a load.
    pub(super) fn open_all(&self, connections: usize) -> Result<Vec<Stream>> {
        let begun = Instant::now();
        let open = |i| {
            ensure!(begun.elapsed() < ALL_OPEN, "{i} of {connections} connections opened in {ALL_OPEN:?}");
            self.open(i).with_context(|| format!("connection {} of {connections}", i + 1))
        };
        (0..connections).map(open).collect()
    }

    /// The `i`th connection, behind its opening handshake; it blocks.
    pub(super) fn open(&self, i: usize) -> Result<Stream> {
        let tcp = self.connect(i)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        // An abortive close leaves no TIME_WAIT, which would use up the ports of the next loads.
        SockRef::from(&tcp).set_linger(Some(Duration::ZERO))?;
        let mut stream = match self.target.tls {
            false => Stream::Plain(tcp),
            true => {
                let opened = self.connector.connect("localhost", tcp);
                Stream::Tls(Box::new(opened.map_err(|e| io::Error::other(e.to_string())).context("TLS")?))
            }
        };
        stream.write_all(self.request.as_bytes())?;
        check_answer(&mut stream)?;
        Ok(stream)
    }

    fn connect(&self, i: usize) -> io::Result<TcpStream> {
        let SocketAddr::V4(address) = self.target.address else {
            return TcpStream::connect(self.target.address);
        };
        if !self.spread {
            return TcpStream::connect(address);
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let source = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + 1 + (i / PER_SOURCE) as u32);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect(&SocketAddr::V4(address).into())?;
        Ok(socket.into())
    }
}

fn check_answer(stream: &mut Stream) -> Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let received = stream.read(&mut buffer).context("opening handshake")?;
        ensure!(received > 0, "closed in the opening handshake");
        head.extend_from_slice(&buffer[..received]);
    }
    // No server speaks first here: nothing can stand behind the head.
    let text = String::from_utf8_lossy(&head);
    let status = text.lines().next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 101"), "opening handshake: {status}");
    ensure!(text.contains(ACCEPT), "opening handshake: a wrong Sec-WebSocket-Accept");
    ensure!(head.ends_with(b"\r\n\r\n"), "opening handshake: bytes that no message called for");
    Ok(())
}

/// What each message contains.
pub(super) fn payload(size: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(size).collect()
}

/// One binary message, masked, in one frame (section 5.2).
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mask = [0x12, 0x34, 0x56, 0x78];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// An empty pong, masked.
pub(super) const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

pub(super) enum Received {
    /// A whole message: where its payload is, in the bytes given, and where the next frame begins.
    Message {
        payload: usize,
        end: usize,
    },
    Ping {
        end: usize,
    },
    Pong {
        end: usize,
    },
}

/// The server's frame at the beginning of these bytes, once it is there to its end.
pub(super) fn received(bytes: &[u8]) -> Result<Option<Received>> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    ensure!(second & 0x80 == 0, "a masked frame from the server");
    let (payload, length): (usize, u64) = match second {
        126 => match bytes.get(2..4).and_then(|length| length.try_into().ok()) {
            Some(length) => (4, u64::from(u16::from_be_bytes(length))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
            Some(length) => (10, u64::from_be_bytes(length)),
            None => return Ok(None),
        },
        length => (2, u64::from(length)),
    };
    let end = usize::try_from(length).ok().and_then(|length| payload.checked_add(length));
    let end = end.context("a frame longer than memory")?;
    match first {
        0x82 if bytes.len() < end => Ok(None),
        0x82 => Ok(Some(Received::Message { payload, end })),
        0x89 | 0x8a if bytes.len() < end => Ok(None),
        0x89 => Ok(Some(Received::Ping { end })),
        0x8a => Ok(Some(Received::Pong { end })),
        0x88 => match bytes.get(payload..payload + 2) {
            Some(code) => bail!("the server closed with {}", u16::from_be_bytes([code[0], code[1]])),
            None => bail!("the server closed"),
        },
        _ => bail!("a frame that begins with {first:#04x}, not a whole binary message (0x82)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let sent = payload(length);
            let mut echo = frame(&sent);
            let header = echo.len() - length - 4;
            echo.drain(header..header + 4);
            echo[1] &= 0x7f;
            echo.truncate(header);
            echo.extend_from_slice(&sent);
            assert!(received(&echo[..echo.len() - 1]).unwrap().is_none());
            echo.push(0x82);
            let Some(Received::Message { payload, end }) = received(&echo).unwrap() else {
                panic!("{length}")
            };
            assert!(payload == header && echo[payload..end] == sent);
        }
    }

    #[test]
    fn what_no_echo_is() {
        for bad in [&[0x82, 0x80, 0][..], &[0x81, 0], &[0x02, 0], &[0x80, 0], &[0x88, 2, 3, 0xe8], &[0xc2, 0]]
        {
            assert!(received(bad).is_err(), "{bad:?}");
        }
    }
}
