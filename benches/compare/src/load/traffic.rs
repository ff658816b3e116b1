//! Messages there and back: each to its sender (`echo`), or of one sender to all (`fan`).

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
    io::Errno,
};

use super::{
    Kind, Measurement, Options,
    client::{self, Dialer, Received, Stream},
    percentile,
};
use crate::system::{cpu_us, memory};

/// Not measured: caches fill, buffers grow.
const WARM_UP: Duration = Duration::from_millis(500);

/// A server from which nothing comes for so long has lost a message.
const SILENCE: Duration = Duration::from_secs(5);

const EVENTS: usize = 512;
const BUFFER: usize = 256 * 1024;

/// The content of every so many-th message is compared, the length of each.
const COMPARED: u64 = 64;

pub(super) fn run(options: &Options) -> Result<Measurement> {
    let mut traffic = Traffic::new(options)?;
    traffic.start()?;
    traffic.drive()?;
    traffic.measured()
}

struct Traffic<'a> {
    options: &'a Options,
    fan: bool,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    payload: Vec<u8>,
    frame: Vec<u8>,
    buffer: Vec<u8>,
    round: Round,
    measuring: Option<Measuring>,
    messages: u64,
    latencies: Vec<u32>,
}

struct Connection {
    stream: Stream,
    out: Vec<u8>,
    /// How much of `out` is sent.
    sent: usize,
    /// Whether it waits to be writable.
    blocked: bool,
    incoming: Vec<u8>,
    /// When the messages were sent whose echoes have not come yet.
    on_their_way: VecDeque<Instant>,
    messages: u64,
}

/// One message of a fan, from its sending until all have it.
struct Round {
    number: u64,
    begun: Instant,
    missing: usize,
}

struct Measuring {
    begun: Instant,
    cpu_us: Option<f64>,
    /// Set at the end.
    elapsed: Duration,
}

impl<'a> Traffic<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let streams = Dialer::new(options)?.open_all(options.conns)?;
        let mut connections = Vec::with_capacity(streams.len());
        for (i, stream) in streams.into_iter().enumerate() {
            stream.tcp().set_nonblocking(true)?;
            epoll::add(&epoll, stream.tcp(), EventData::new_u64(i as u64), EventFlags::IN)?;
            connections.push(Connection::new(stream));
        }
        let payload = client::payload(options.size);
        Ok(Self {
            options,
            fan: options.kind == Kind::Fan,
            epoll,
            connections,
            frame: client::frame(&payload),
            payload,
            buffer: vec![0; BUFFER],
            round: Round { number: 0, begun: Instant::now(), missing: 0 },
            measuring: None,
            messages: 0,
            latencies: Vec::with_capacity(4_000_000),
        })
    }

    fn start(&mut self) -> Result<()> {
        if self.fan {
            return self.next_round();
        }
        for i in 0..self.connections.len() {
            for _ in 0..self.options.inflight {
                self.connections[i].send(&self.frame, Instant::now());
            }
            self.connections[i].flush(&self.epoll, i)?;
        }
        Ok(())
    }

    fn next_round(&mut self) -> Result<()> {
        let now = Instant::now();
        self.round = Round { number: self.round.number + 1, begun: now, missing: self.connections.len() };
        let sender = &mut self.connections[0];
        sender.out.extend_from_slice(&self.frame);
        sender.flush(&self.epoll, 0)
    }

    /// Until enough is measured.
    fn drive(&mut self) -> Result<()> {
        let warm = Instant::now() + WARM_UP;
        let (mut heard, mut heard_messages) = (Instant::now(), 0);
        let mut events = Vec::with_capacity(EVENTS);
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&second)) {
                Err(Errno::INTR) => continue,
                waited => waited?,
            };
            let now = Instant::now();
            if self.messages != heard_messages {
                (heard, heard_messages) = (now, self.messages);
            }
            ensure!(now - heard < SILENCE, "no message for {SILENCE:?}");
            match &mut self.measuring {
                Some(measuring) => {
                    measuring.elapsed = now - measuring.begun;
                    if measuring.elapsed >= self.options.duration() {
                        return Ok(());
                    }
                }
                None if now >= warm => {
                    let cpu_us = self.options.pid.map(cpu_us).transpose()?;
                    self.measuring = Some(Measuring { begun: now, cpu_us, elapsed: Duration::ZERO });
                    (self.messages, heard_messages) = (0, 0);
                    self.latencies.clear();
                }
                None => {}
            }
            for event in events.drain(..) {
                let (i, flags) = (event.data.u64() as usize, event.flags);
                self.on_event(i, flags, now)?;
            }
            if self.fan && self.round.missing == 0 {
                self.next_round()?;
            }
        }
    }

    fn on_event(&mut self, i: usize, flags: EventFlags, now: Instant) -> Result<()> {
        if flags.contains(EventFlags::OUT) {
            self.connections[i].flush(&self.epoll, i)?;
        }
        if flags == EventFlags::OUT {
            return Ok(());
        }
        self.connections[i].receive(&mut self.buffer)?;
        let mut incoming = std::mem::take(&mut self.connections[i].incoming);
        let mut at = 0;
        while let Some(received) = client::received(&incoming[at..])? {
            at += match received {
                Received::Message { payload, end } => {
                    self.on_message(i, &incoming[at + payload..at + end], now)?;
                    end
                }
                Received::Ping { end } => {
                    self.connections[i].out.extend_from_slice(&client::PONG);
                    end
                }
                Received::Pong { end } => end,
            };
        }
        incoming.drain(..at);
        let connection = &mut self.connections[i];
        connection.incoming = incoming;
        if connection.blocked { Ok(()) } else { connection.flush(&self.epoll, i) }
    }

    fn on_message(&mut self, i: usize, payload: &[u8], now: Instant) -> Result<()> {
        let sent = self.payload.len();
        ensure!(payload.len() == sent, "a message of {} bytes came back, sent was {sent}", payload.len());
        let connection = &mut self.connections[i];
        if connection.messages.is_multiple_of(COMPARED) && payload != self.payload {
            bail!("a message came back changed");
        }
        connection.messages += 1;
        self.messages += 1;
        if self.fan {
            // With nobody ahead of the round, a full round is one message for each.
            ensure!(connection.messages <= self.round.number, "more messages came than were sent");
            self.round.missing -= 1;
            if self.round.missing == 0 {
                self.latencies.push(self.round.begun.elapsed().as_micros() as u32);
            }
            return Ok(());
        }
        let then = connection.on_their_way.pop_front().context("more messages came than were sent")?;
        self.latencies.push((now - then).as_micros() as u32);
        connection.send(&self.frame, Instant::now());
        Ok(())
    }

    fn measured(mut self) -> Result<Measurement> {
        let measuring = self.measuring.take().context("ended before it was warm")?;
        ensure!(!self.latencies.is_empty(), "no message came back in time");
        let pid = self.options.pid;
        let messages = self.messages as f64;
        let cpu = measuring.cpu_us.zip(pid.map(cpu_us).transpose()?).map(|(before, after)| after - before);
        Ok(Measurement {
            connections: self.connections.len(),
            per_second: Some(messages / measuring.elapsed.as_secs_f64()),
            p50_us: percentile(&mut self.latencies, 0.5),
            p99_us: percentile(&mut self.latencies, 0.99),
            cpu_us_each: cpu.map(|cpu| cpu / messages),
            resident_mib: pid.map(memory).transpose()?.map(|(kib, _)| kib as f64 / 1024.0),
            ..Measurement::default()
        })
    }
}

impl Connection {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            out: Vec::new(),
            sent: 0,
            blocked: false,
            incoming: Vec::new(),
            on_their_way: VecDeque::new(),
            messages: 0,
        }
    }

    /// With the next `flush`.
    fn send(&mut self, frame: &[u8], now: Instant) {
        self.out.extend_from_slice(frame);
        self.on_their_way.push_back(now);
    }

    /// As much as the socket takes; the rest when it can be written again.
    fn flush(&mut self, epoll: &OwnedFd, i: usize) -> Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e).context("write"),
            }
        }
        let blocked = self.sent < self.out.len();
        if !blocked {
            self.out.clear();
            self.sent = 0;
        }
        if blocked != self.blocked {
            self.blocked = blocked;
            let flags = if blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(epoll, self.stream.tcp(), EventData::new_u64(i as u64), flags)?;
        }
        Ok(())
    }

    /// What there is, behind what is there already.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => bail!("closed by the server"),
                Ok(received) => {
                    self.incoming.extend_from_slice(&buffer[..received]);
                    // Of TLS there may be more, of which epoll knows nothing.
                    if received < buffer.len() && matches!(self.stream, Stream::Plain(_)) {
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e).context("read"),
            }
        }
    }
}
