//! A server that stood still for a while, as a laptop or a virtual machine does: its clients have done nothing wrong.
#![cfg(all(feature = "__tls", feature = "cli", unix))]
mod common;

use std::{io::Write, thread, time::Duration};

use common::{Scheme, Stream, frame, handshake, process::Process};
use rustix::process::Signal;

#[test]
fn pongs_that_came_while_the_process_was_stopped_are_read_before_they_are_judged_late() {
    let args = ["--listen", "127.0.0.1:0", "--ping-interval", "1", "--ping-timeout", "4"];
    let mut server = Process::start(&[&["serve"], &args[..]].concat());
    let address = server.address("http");
    let mut clients: Vec<_> = (0..60)
        .map(|n| {
            let mut client = Stream::connect(address, Scheme::Ws);
            let path = if n % 2 == 0 { "/echo" } else { "/echo-shared" };
            client.write_all(handshake(path).as_bytes()).unwrap();
            assert!(client.read_head().starts_with("HTTP/1.1 101 "));
            client
        })
        .collect();
    let pings: Vec<_> = clients
        .iter_mut()
        .map(|client| {
            let (first, payload) = client.read_frame();
            assert_eq!(first, 0x89);
            payload
        })
        .collect();
    server.signal(Signal::STOP);
    for (client, ping) in clients.iter_mut().zip(pings) {
        client.write_all(&frame(0x8a, &ping)).unwrap();
    }
    thread::sleep(Duration::from_secs(5)); // longer than any of them had to answer
    server.signal(Signal::CONT);
    for client in &mut clients {
        client.write_all(&frame(0x81, b"still here")).unwrap();
        let answer = loop {
            match client.read_frame() {
                (0x89, ping) => client.write_all(&frame(0x8a, &ping)).unwrap(),
                other => break other,
            }
        };
        assert_eq!(answer, (0x81, b"still here".to_vec()));
    }
}
