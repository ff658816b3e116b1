//! What the system allows: a thread for each connection, frames taken apart by hand, nothing checked, no memory taken anew.
//!
//! No server to use: it trusts every length, knows no close and no ping, and answers only the load's own handshake.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use anyhow::Result;

/// The answer to the load's key, which is the example of RFC 6455, section 1.3.
const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const BUFFER: usize = 16 * 1024;

pub(super) fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    for socket in listener.incoming() {
        let socket = socket?;
        socket.set_nodelay(true)?;
        // The client has left, if it fails.
        thread::Builder::new().stack_size(64 * 1024).spawn(move || drop(echo(socket)))?;
    }
    Ok(())
}

fn echo(mut socket: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    // No client sends more before it has its answer.
    while !buffer[..filled].ends_with(b"\r\n\r\n") {
        match socket.read(&mut buffer[filled..])? {
            0 => return Ok(()),
            received => filled += received,
        }
    }
    socket.write_all(ANSWER)?;
    let mut out = Vec::with_capacity(BUFFER);
    filled = 0;
    loop {
        let received = socket.read(&mut buffer[filled..])?;
        if received == 0 {
            return Ok(());
        }
        filled += received;
        let mut at = 0;
        out.clear();
        while let Some((header, payload)) = frame(&buffer[at..filled]) {
            let end = at + header + 4 + payload;
            if end - at > buffer.len() {
                buffer.resize(end - at, 0);
            }
            if end > filled {
                break;
            }
            echo_frame(&buffer[at..end], header, &mut out);
            at = end;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        if !out.is_empty() {
            socket.write_all(&out)?;
        }
    }
}

/// Lengths of header (without the mask) and payload: RFC 6455, section 5.2.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let short = usize::from(*bytes.get(1)? & 0x7f);
    match short {
        126 => Some((4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into())),
        127 => Some((10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize)),
        _ => Some((2, short)),
    }
}

/// The same frame without its mask.
fn echo_frame(frame: &[u8], header: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&frame[..header]);
    out[start + 1] &= 0x7f;
    out.extend_from_slice(&frame[header + 4..]);
    let mask = [frame[header], frame[header + 1], frame[header + 2], frame[header + 3]];
    let word = u32::from_ne_bytes(mask);
    let (words, rest) = out[start + header..].as_chunks_mut::<4>();
    for bytes in words {
        *bytes = (u32::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}
