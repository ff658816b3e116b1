//! WebSockets for programs without an async runtime: a server, and [clients](#clients).
//!
//! You write a type with three methods, [`on_pre_server`], [`server`] and [`on_post_server`]; the server runs one instance
//! for each connection, on an operating-system thread of its own, and `server` simply reads and writes, with timeouts. Any
//! other thread can find a connection by its ID and push messages to it, and *shared* connections need no thread of their
//! own. There is no runtime and no `async`: WebSockets can be added to a program that already uses threads and loops, also
//! on a small Linux device. The programming model and the names are those of `%CSP.WebSocket` of InterSystems IRIS.
//!
//! [`on_pre_server`]: WebSocketServer::on_pre_server
//! [`server`]: WebSocketServer::server
//! [`on_post_server`]: WebSocketServer::on_post_server
//!
//! ```
//! use std::time::Duration;
//! use switchboard::{Error, Server, ServerError, ServerResult, WebSocket, WebSocketServer};
//!
//! struct Echo;
//!
//! impl WebSocketServer for Echo {
//!     fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
//!         loop {
//!             match ws.read_message(Duration::from_secs(10)) {
//!                 Ok(message) => ws.write(message)?,
//!                 Err(Error::Timeout) => ws.write("still there?")?,
//!                 Err(closed) => return Err(closed.into()),
//!             }
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), ServerError> {
//! let server = Server::builder().listen("127.0.0.1:0").route("/echo", || Echo).bind()?;
//! println!("ws://{}/echo", server.local_addrs()[0]);
//! # let handle = server.handle();
//! # handle.shutdown(Duration::ZERO);
//! server.run()?;
//! # Ok(()) }
//! ```
//!
//! # Concurrency
//!
//! ```text
//! clients ─► acceptor ─► connection's thread ─► your server(&mut ws)       synchronous
//!                         │                   waits in recv
//!                         └─ shared? ─► gateway, for all ─► workers: on_client_message
//!                                           │               inbox ─► read, by any thread
//! any thread ─► Hub: push, broadcast ─► outbox ─► protocol ─► send, never waiting
//! ```
//!
//! | thread | what it does | how many |
//! |---|---|---|
//! | the one that calls [`Server::run`], or `switchboard-run` of [`Server::spawn`] | waits for the shutdown, joins the other threads, and keeps the [sessions](#sessions) of open connections alive | 1 |
//! | `switchboard-accept` | accepts clients, and hands their sockets to the connection threads | one for each listener |
//! | `switchboard-conn` | all of one connection: TLS, pages, the opening handshake, your methods, the closing handshake; then waits for another connection, for [`Limits::thread_keep_alive`] | one for each synchronous connection, one for each that is in its HTTP phase, and those that wait |
//! | `switchboard-gate` | the sockets of shared connections, output that a socket did not take at once, pings, deadlines | [`Limits::gateways`] |
//! | `switchboard-cert` | loads certificates again when their files change, if a `TlsWatch` is there; sleeps until then, but for a look once a minute | one for each |
//! | `switchboard-work` | [`on_client_message`](WebSocketServer::on_client_message), and `on_post_server` of shared connections | [`Limits::workers`] |
//!
//! A [hub of another process](Hub#in-another-process) has a thread, `switchboard-hub`.
//! The [management listener](#other-processes), if there is one, has threads of its own, under the same names; and those of
//! `switchboard-wait`, one for each call of a hub in another process that waits, and for 2 s after it.
//!
//! Which thread may call what:
//!
//! - [`read`](WebSocket::read) of a synchronous connection: the thread of `server`, and those that it starts and lends the
//!   [`WebSocket`] to ([an example](WebSocket)); one reads at a time. Of a shared one: any thread that has opened it with
//!   [`Hub::open_server`], several at once. Each gets different messages. With [`read_delivery`](WebSocket::read_delivery) a message
//!   that its reader did not acknowledge is read again, by whoever reads next.
//! - [`write`](WebSocket::write): any thread that has the [`WebSocket`]. Messages are never mixed with each other, and those
//!   of one thread keep their order. It waits for a slow client, except in `on_client_message`.
//! - [`Hub::push`], [`Hub::push_all`], [`Pusher::push`], [`Hub::broadcast`], [`Hub::publish`]: any thread, to any connection,
//!   without waiting for the network. They reach the client at once, even while the connection's own thread waits in `read`, computes, or is
//!   writing.
//! - [`Hub::push_wait`], [`Pusher::push_wait`]: the same, but they wait until the message is sent. Any thread except a
//!   gateway: with [`Limits::workers`] 0 not `on_client_message`.
//! - [`Hub::close`], [`Hub::close_all`], [`WebSocket::end_server`]: any thread. A thread that waits in `read` of a shared
//!   connection returns at once.
//! - [`ServerHandle::adopt`], [`ServerHandle::shutdown`]: any thread, without waiting.
//! - [`ServerHandle::check_progress`]: any thread except a gateway; it waits until the threads that accept and the gateways have gone
//!   round their loops.
//! - [`Client::connect`], in a program that is a client, too: any thread except a gateway, as `push_wait`. The other methods of a
//!   [`Client`] do there what can be done without waiting.
//! - [`TlsIdentity::replace`], [`TlsIdentity::reload`]: any thread; they check what they are given, and `reload` reads files.
//! - An ID is valid as soon as `on_pre_server` can ask for it: what is pushed to a connection that is being opened follows
//!   the answer to its handshake. What needs the connection itself waits for that answer: [`Hub::open_server`], `connection`,
//!   `join`, `topics_of`, `push_wait`.
//!
//! Which thread calls your code:
//!
//! | method | of a synchronous connection | of a shared one |
//! |---|---|---|
//! | the factory of its [`route`](ServerBuilder::route), `on_pre_server`, `server` | its own thread | a thread that it has until `server` returns |
//! | [`on_client_message`](WebSocketServer::on_client_message) | | a worker; without workers a gateway |
//! | [`on_post_server`](WebSocketServer::on_post_server), and then the drop of the instance | its own thread | a worker; without workers a gateway |
//! | [`HubObserver`]: `opened`; `closed` | its own thread | the thread of `on_pre_server`; a gateway |
//! | [`HubObserver`]: topics and users | that of the opening, of the end, or of the `join` or `leave` that causes it | the same |
//!
//! The methods of one instance are called by one thread at a time, `on_client_message` in the order of the messages, and
//! `on_post_server` as the last one.
//!
//! **Locks of your own.** No code of yours runs within a push, a broadcast or a close, also not that of an end which they bring
//! about, and none of them waits for any. So a lock that your callbacks and observers take may be held over [`Hub::push`],
//! `push_all`, `broadcast`, `publish`, `push_user`, `close`, `close_all` and `close_user`, [`Pusher::push`] and [`WebSocket::end_server`]; then
//! all clients get what changes in the order in which it has changed (`examples/jobs.rs`). Not over what waits: reads and
//! writes, `push_wait`, and, if `on_pre_server` takes it as well, what waits for a connection that is being opened (above). Nor
//! over `join`, `join_since` and `leave`, if an observer takes it: what they cause is told before they return. And your logger is
//! called by everything: it must not publish to a topic that remembers, which may be just what is publishing.
//!
//! While a handler computes and does not read, the gateway checks its socket once a second: it answers pings, notices a
//! close, and keeps messages for the next `read`. A handler that computes for an hour does not lose its client.
//!
//! A panic in your code ends only that connection, with close code 1011. For that it has to unwind: a program built with
//! `panic = "abort"`, as with the profile `small` of the command's source, ends as a whole, with all connections, at the first panic in any
//! handler: there whatever started it has to start it again. Choose it where your handlers cannot panic, or where size counts for more.
//!
//! A thread serves one connection after another: if a handler changes a property of its thread, such as priority or affinity,
//! it has to restore it. Without clients all threads sleep, but for the one that looks after sessions, eight times within their
//! timeout of 900 s; with silent clients only the pings wake them.
//!
//! # Flushing
//!
//! [`write`](WebSocket::write) returns when the kernel has taken the message. There is one exception, which makes pipelined
//! traffic several times faster: while further messages of the same client have already arrived, the answers are
//! collected, and sent together as soon as `read` would wait, at 16 KiB, or when `server` returns; and after 1 ms in any
//! case. [`flush`](WebSocket::flush) sends them at once.
//!
//! # Closing
//!
//! Every connection ends with a [`CloseReason`]: a code, a text, and which side began. `read` and `write` report the end,
//! also a normal one, as [`Error::Closed`]. If `server` returns this error (by `?`, for example), that is not a failure.
//! A `write` may report it while earlier messages still wait to be read: to lose none of them, call `read` until it
//! reports the end, too.
//!
//! | what happens | the client gets | `reason()` |
//! |---|---|---|
//! | `server` returns, or [`end_server`](WebSocket::end_server) | 1000 | 1000, by the server |
//! | [`close`](WebSocket::close) with a code of your own | that code and text | the same |
//! | `server` returns an error, or panics | 1011 | 1011, by the server |
//! | the client closes | its own code back | its code, or 1005 if it gave none |
//! | the client breaks the protocol; sends text that is not UTF-8; sends more than the limit | 1002; 1007; 1009 | the same, by the server |
//! | the connection breaks, or ends without a close frame | | 1006 |
//! | a write takes longer than the limit | no close frame: the connection is cut | 1006, by the server |
//! | the client begins a message, and sends nothing more of it for [`Limits::message_timeout`] | 1008 | 1008, by the server |
//! | all connections together hold too much, and this one most | 1013; no close frame if it takes nothing | 1013, by the server |
//! | the server shuts down | 1001 | 1001, by the server |
//!
//! What was pushed before a close goes before the close frame, as far as the client takes it within [`Limits::close_timeout`].
//! It stays in the queue until then, shared with other connections where it was broadcast.
//!
//! Messages that arrived before the client's end can still be answered: before its close frame, the end of its stream, or a
//! protocol error. The end takes effect when the handler that has read them reads on, when whoever has
//! [opened](Hub::open_server) a shared connection reads on or drops the [`WebSocket`], and every [`Delivery`] is settled, or after
//! [`Limits::close_timeout`]. Only a connection that is broken, such as by a reset, ends at once.
//!
//! After a close frame the server does not close the socket at once: it ends its side of the stream (FIN), and reads until
//! the client has ended the other side, for at most [`Limits::close_timeout`]. So the client gets the close frame, and not a
//! reset.
//!
//! # HTTP
//!
//! A connection may ask for pages ([`ServerBuilder::http`], [`ServerBuilder::files`]) before it asks for a WebSocket. It stays
//! open for [`Limits::http_keep_alive`] after each; requests that come together are answered in order. A connection that waits
//! for its next request has its thread, but its place among [`Limits::max_connections`] goes to whoever comes when there is no
//! other, and [`Limits::max_http_idle`] of them wait at most. HTTP/1.0 and `Connection: close` get one response.
//!
//! A page has a path, or all paths below one (`/items/*`; what the `*` stands for is [`Exchange::path_tail`]), and a method; one for
//! GET is for HEAD, too. Other methods are answered with 405 and `Allow`, a GET where there is only a WebSocket with 426, and
//! `OPTIONS *` with 204.
//!
//! A request's body is received when the handler asks for it with [`Exchange::body`]; one that nobody asks for is thrown away if
//! it is short, else the connection ends after the response. Bodies and responses have to go on at [`Limits::min_http_rate`].
//! What proxies might delimit in another way is refused with 400, and the connection ends: `Content-Length` with
//! `Transfer-Encoding`, several of them, malformed ones, line feeds where a chunk has to have CRLF.
//!
//! A program that has an HTTP server already hands connections over with [`ServerHandle::adopt`].
//!
//! # Compression
//!
//! permessage-deflate (RFC 7692) is off by default. [`ServerBuilder::compression`] turns it on, or, for one route,
//! [`Opening::set_compression`]: see [`Compression`] for what the modes cost. All four parameters are negotiated.
//! Decompression stops at [`Limits::max_message_size`], so a small message cannot fill the memory; messages of fewer than
//! [`Limits::min_compressed_size`] bytes are sent uncompressed.
//!
//! # Slow clients
//!
//! Pushed messages that a client does not take at once are queued, up to [`Limits::max_queue_bytes`] and
//! [`Limits::max_queue_messages`]. What happens when the queue is full is chosen in `on_pre_server`: see [`Overflow`]. What
//! `on_client_message` writes is queued in the same way, since nothing in it waits. A thread that would rather wait until its
//! message is sent calls [`Hub::push_wait`]. A queue that is empty takes any message, and by default four of the largest that
//! a client may send, so that one client does not empty a room of others. A client that sends more than is read is held back
//! by TCP when its inbox is full; nothing is lost. Of values that replace each other ([`Payload::newest`]) a slow client gets the last
//! one, with [`Overflow::KeepNewest`].
//!
//! # Clients
//!
//! A [`Client`] is the other end of a connection: it connects to a server by a URL, and has the methods of a [`WebSocket`]. It has
//! no thread of its own: the threads and timeouts of clients are said [there](Client#threads). With [`Client::builder`] it gets
//! headers, subprotocols, compression, a proxy, and whom to trust over TLS.
//!
//! ```no_run
//! use std::time::Duration;
//! use switchboard::{Client, Error};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("ws://127.0.0.1:8080/echo")?;
//! client.write("hello")?;
//! println!("{:?}", client.read_message(Duration::from_secs(5))?);
//! client.finish();
//! # Ok(()) }
//! ```
//!
//! A [`Reconnecting`] is one that connects again whenever its connection has ended, in the background, with a queue for what is sent
//! meanwhile: for boxes that dial out, with a loop of their own. Each has one thread, `switchboard-link`.
//!
//! # Observing
//!
//! [`Hub::connections`], [`Hub::members`] and [`Hub::topics`] list what there is, page by page. A [`HubObserver`] is told what
//! happens: when connections are opened and closed, when topics get their first member and lose their last, and when users come
//! and go.
//!
//! The [management listener](#other-processes) has the numbers of a server ready: for Prometheus at `/metrics`, and for whoever looks
//! at it all the time at `/@stats`. Without that listener nothing of it is counted.
//!
//! # Other processes
//!
//! With the feature `manage` and `ServerBuilder::manage`, other processes reach the hub over HTTP: they push to a connection by its
//! ID, list, show and close connections, read from shared ones, publish to topics and users, and are told what happens.
//! `/@connections` is the API that clients of AWS's API Gateway know, which sign with a token as their secret key; `/health` and
//! `/ready` are for whoever watches over the server. It is a listener of its own, on Unix sockets, or with a token: `Manage` says
//! all of it. At `/` it has a console for people: plots, connections and topics, and what can be done with them.
//!
//! ```text
//! curl --unix-socket /run/box.sock -d 'it rains' http://localhost/@connections/b3kT9ZcYw4mQ1s8xAAAAKg
//! ```
//!
//! One in Rust need not know where a connection lives: with the feature `remote`, `Hub::connect("unix:/run/box.sock")` is a [`Hub`] with
//! all of its methods, and so are the [`WebSocket`]s that it opens. See [there](Hub#in-another-process).
//!
//! # Many machines
//!
//! With the feature `cluster`, servers that are given the same Redis or Valkey (`ServerBuilder::cluster`) are one *cluster*, and each is a
//! *node*. The [`Hub`] of each reaches the connections of all: the same methods, answers and errors. An ID says which
//! [node](WebSocketId::node) has the connection, so nothing is looked up for a push.
//!
//! | what | between nodes |
//! |---|---|
//! | [`Hub::push`], `push_all`, [`Pusher`] | at most once; [`Pushed::Forwarded`]: its node is alive and listens, and was sent it. What it could not do with it, such as a full queue, nobody tells |
//! | [`Hub::push_wait`] | at most once, and the answer is that of the node: sent, full, gone |
//! | [`Hub::broadcast`], [`Hub::publish`] | each connection once; connections of this node are counted, of the others the nodes ([`Broadcast::forwarded`]) |
//! | order | what one thread pushes to one connection, or to one topic, arrives in that order |
//! | topics that [remember](crate#topics-that-remember) | all nodes get all publications in the same order, without a gap; what was missed while Redis was away comes when it is back |
//! | [`Hub::open_server`] | `read` at least once, as from another process: what was not acknowledged comes again |
//! | lists | node by node, each in the order of its IDs; topics and users merged, with the sum of what all nodes have |
//! | sessions | the nodes have the same [`session_keys`](ServerBuilder::session_keys), and a store that all reach, such as `RedisStore` |
//!
//! A push to a node that is gone is [`Unknown`](PushErrorKind::Unknown) when its lease is over (10 s by default), or at once if it has left
//! in order. While Redis cannot be reached, all that concerns connections of other nodes is [`Unreachable`](Error::Unreachable), at once
//! where that is known, else within the `answer_timeout` (1 s); what concerns this node's own goes on as before, but for publications to
//! topics that remember, whose order is Redis's. Nothing is queued for later. The node connects again by itself, with growing delays, and
//! has all its subscriptions then.
//!
//! A node listens to the topics and users that have connections there, from the first to the last; so what goes to a topic costs only
//! those that have members. A call that asks other nodes waits for them, and on a thread that
//! [must not wait](PushErrorKind::MustNotWait) fails with that; a push and a broadcast are sent there without waiting. Whoever can
//! write to that Redis is trusted as a node is. Messages to other nodes have 8 MiB at most.
//!
//! Redis Cluster is not supported: the client that this is built on has no Pub/Sub for it without an async runtime. One Redis, with
//! replicas and Sentinels, carries some hundred thousand messages a second; beyond that, several clusters of nodes, each with a Redis of
//! its own, share the users among them.
//!
//! # Users and topics
//!
//! In `on_pre_server` a connection can be given a user ([`Opening::set_user`]), tags ([`Opening::set_tag`]) and topics
//! ([`Opening::join`]; later, [`WebSocket::join`]). An [`Audience`] is all connections, or those of a path, a route, a topic or a
//! user; [`Hub::broadcast`] sends to one, and [`Hub::close_all`] closes it, [except](Audience::except) one connection where that
//! is wanted. What is sent to a user or a topic reaches also a connection that is being opened, behind the answer to its
//! handshake; so nothing is missed between the moment when it is said what it belongs to, and its beginning.
//!
//! Each of these has a bound: see [`OverLimit`].
//!
//! [`Hub::presence`] lists the users who are in a topic, and a [`HubObserver`] is told the first connection of a user there, and the
//! end of the last one: two tabs are one user.
//!
//! # Topics that remember
//!
//! Where [`ServerBuilder::history`] says so, a topic remembers what is [published](Hub::publish) to it: the newest publications, up to
//! a number and an age, in memory, and all topics together up to [`Limits::max_history_bytes`]. Each has a [`Position`]: the epoch of
//! the topic, and an offset. Who joins with [`join_since`](Opening::join_since) and the last position that it has seen gets what it
//! has missed, and then what follows: all members in the same order, each publication once, and without a gap. Where that cannot be,
//! because it is forgotten or the server was started anew, this is [said](Recovery), to the program and to the client. A member that is
//! too slow for that is closed with 1013, whatever its [`Overflow`]: it comes again for the rest.
//!
//! Publications of one topic are sent one after the other, with a lock of that topic; those of others go on beside it. A
//! [`Publication`] with an idempotency key is sent once, as long as it is remembered, however often it is published.
//!
//! In a [cluster](crate#many-machines), Redis keeps what a topic remembers, as a stream, and gives each publication its place: so all
//! nodes deliver the same, in the same order, and whoever comes back does so at any of them. A node keeps a copy of each topic that has
//! members there, within [`Limits::max_history_bytes`], and asks Redis for it once, however many clients come back; a topic's rule should
//! be the same on all nodes: what counts is that of who publishes. A node that could not reach Redis catches up, and delivers what it has
//! missed. If that is not remembered any more, or Redis has lost some of what it had (it was started anew without its data, or a replica
//! took over that was behind), members that have joined with a position are told so in the middle: a line with `gap`, as after joining.
//! A topic that nothing was published to for as long as it remembers is forgotten there. While Redis is away nothing is published
//! ([`Unreachable`](Error::Unreachable)). `join` goes on meanwhile, and gets what is published from when the node reaches Redis;
//! `join_since` does where the node has a copy that the client has seen no more of, and is `Unreachable` else, which a handshake answers
//! with 503. Give Redis a `maxmemory-policy` that evicts nothing (`noeviction`), or what it evicts is missing.
//!
//! # Fairness
//!
//! What some clients do does not stop others, whatever they send: empty fragments, pings, tiny messages, or what takes long to
//! inflate. A connection is decoded in pieces of some 100 µs at most; then others have their turn, on the gateway and for the
//! connection's lock, and those that sent less come first. Of the threads of connections that take longer, only as many decode at
//! a time as there are processors. The same holds for workers: 64 messages at a time. Only
//! [`on_client_message`](WebSocketServer::on_client_message) may take as long as it likes, and keeps its worker for so long.
//! `benches/README.md` has figures.
//!
//! # Sessions
//!
//! A [`Session`] is what one user has, in all tabs: an ID, and values that all connections and HTTP requests with the same cookie
//! share.
//!
//! - The cookie is set by the 101 of a WebSocket, or by the response of a page whose handler calls [`Exchange::session`]. It holds
//!   the ID and its signature: so nobody can make one up, and the ID stays the same as long as the browser keeps the cookie,
//!   although the server keeps nothing of a session that holds nothing. How long that is: [`SessionCookie::max_age`].
//! - The key of the signatures is random at each start, unless [`ServerBuilder::session_keys`] sets it.
//! - A page and the sockets that it opens have one session, if the page's handler calls [`Exchange::session`]. A page that is a file
//!   sets no cookie: then its first socket gets one, and what is opened at the same time, without a cookie yet, has sessions of
//!   its own, of which the browser keeps the last.
//! - Values end when they were not used for [`Limits::session_timeout`]. While a connection is open, shared or not, its
//!   session is in use; when it ends, the time begins.
//! - In `server`, [`WebSocket::session`] reads and writes the values.
//! - A *shared* connection keeps its session in use as long as it is open, and has its [`session_id`](WebSocket::session_id)
//!   for all of its life, also in `open_server` of any thread. But it lends a [`Session`], with the values, only until `server`
//!   returns: what `on_client_message` needs of it, or a clone of it, is taken there, or in `on_pre_server`, and kept in the
//!   instance.
//! - When a user has logged in, [`Session::renew`] gives the session a new ID; when one logs out, [`Session::end`] or
//!   [`set_session_end_on_close`](WebSocket::set_session_end_on_close) removes all values.
//! - Who needs none of this calls [`Opening::set_use_session`] or [`ServerBuilder::use_session`] with false: then there is no
//!   cookie, and nothing is looked up.
//! - The values are in memory. A program that has sessions already, or a database for them, has its own [`SessionStore`]. If that
//!   fails, a handshake that uses its session is answered with 503, and others are not touched. `RedisStore` (feature `cluster`) keeps
//!   them in a Redis or Valkey, where several servers have the same ones.
//!
//! The number of sessions with values in memory has a bound, [`Limits::max_sessions`], and so has what all of them take,
//! [`Limits::max_session_memory`], by default a sixteenth of the memory. Beyond it others are given up, first those of
//! strangers who never came again: so they lock nobody out, even if an application stores something for everybody.
//!
//! # Limits
//!
//! Every wait has a deadline, every queue a maximum size, and every limit a close code or an HTTP status: see [`Limits`].
//! What all connections hold together has a bound, too: [`Limits::max_buffered_bytes`], by default a quarter of the memory.
//!
//! ## How many connections
//!
//! By default a server takes what the box has room for when it begins to run, and 4,096 connections at most. It says so in the log:
//!
//! ```text
//! at most 4096 connections, 44 of them with a thread (synchronous, or in their handshake): 48 MiB of memory, 19923 descriptors
//! and 15358 threads are left; the limit is the address space (ulimit -v)
//! ```
//!
//! More get HTTP 503 with `Retry-After`, at once and without a thread (over TLS the stream just ends), and are served when others have
//! gone. A [`Limits::max_connections`] that you have chosen is kept; what there is of memory and threads bounds it nevertheless. The
//! least of these counts:
//!
//! - **Descriptors** (`ulimit -n`, `LimitNOFILE=`): one for each connection, another one while it is sent a file, some 20 for the
//!   server, and those of your program. The limit is often 1,024; the `switchboard` command raises it for itself, a library does
//!   not. Two thirds of what is left when the server begins to run, or all but 64, are for connections, unless you have chosen how many.
//! - **Threads** (`ulimit -u`, `TasksMax=`, the pids limit of a container, `vm.max_map_count`): one for each synchronous connection,
//!   and for each that is in its HTTP phase or waits for its next request. Shared connections need none. Of what is left, a
//!   sixteenth and four are for others.
//! - **Addresses** (`ulimit -v`, `ulimit -d`; or 2 GiB, with 32 bits): a synchronous connection takes [`Limits::stack_size`], by
//!   default 256 KiB, and up to 112 KiB beside it, 48 more with TLS.
//! - **Memory** (of the machine, or `memory.max`, `memory.high` or `memory.limit_in_bytes` of a cgroup): the [figures below](#memory);
//!   32 KiB are reckoned for each that has a thread, 2 for each that has none, 48 and 16 more with TLS, and 460 for each with
//!   [`Compression::Dedicated`]. What your handlers hold is not known.
//!
//! Of the addresses and the memory that are left at the start, half is for [buffers](Limits::max_buffered_bytes), which take a quarter
//! and need twice that while they grow; a sixth (from 1 to 32 MiB) is kept back; the rest, a third, is for connections.
//! [Topics](Limits::max_topics_bytes) and [sessions](Limits::max_session_memory) may take a sixteenth each, of what nobody else takes
//! just then. So, for the `switchboard` command on x86-64:
//!
//! | `ulimit -v` | for buffers | with a thread each | over TLS | without a thread | over TLS |
//! |---|---|---|---|---|---|
//! | 32 MiB | 3.8 MiB | 14 | 11 | 2,700 | 260 |
//! | 64 MiB | 12 MiB | 44 | 37 | 4,096 | 870 |
//! | 128 MiB | 28 MiB | 103 | 90 | 4,096 | 2,080 |
//!
//! Clients are admitted only as long as more than what is kept back is left. Where addresses or data are limited, or memory is less
//! than 1 GiB, what is large is asked for: a connection whose message gets no memory is closed with 1013. What is kept back is for all
//! that is small, and for your code; a program that needs more has to be given more, since Rust ends a process that has none. Clients
//! that were refused are counted in the summary in the log, once a minute, and as
//! `switchboard_handshakes_refused_total{reason="no_room"}`.
//!
//! glibc's allocator reserves 64 MiB of addresses for each of up to eight arenas per processor. With a limit of addresses, start your
//! program with `MALLOC_ARENA_MAX=1`. The `switchboard` command does that by itself, by beginning anew; musl's allocator has no arenas.
//!
//! # Timeouts
//!
//! All that a program meets. Those without a link are fields of [`Limits`].
//!
//! | name | what it measures | default | what happens then |
//! |---|---|---|---|
//! | `handshake_timeout` | from the accept to the end of the opening handshake, TLS and a proxy's header included; again from the first byte of each further HTTP request to the end of its head | 10 s | the connection ends |
//! | `handshake_timeout`, `min_http_rate` | a request's body: this time, and 4 KiB a second | 10 s | HTTP 408 |
//! | `write_timeout`, `min_http_rate` | a response: this time, and 4 KiB a second | 30 s | the connection is cut |
//! | `http_keep_alive` | waiting for the next HTTP request | 5 s | the connection ends |
//! | [`read`](WebSocket::read), [`read_message`](WebSocket::read_message), [`read_delivery`](WebSocket::read_delivery) | the whole call | you say; [`messages`](WebSocket::messages): none | [`Error::Timeout`], and all goes on |
//! | `write_timeout` | [`write`](WebSocket::write) and `flush`, and queued output that the client does not take | 30 s | [`Error::Timeout`], and the connection is cut (1006) |
//! | [`push_wait`](Hub::push_wait) | until the kernel has the message | you say | [`PushErrorKind::Timeout`] or `Pending`, and all goes on |
//! | `answer_timeout` of `HubBuilder` | any call of a [hub of another process](Hub#in-another-process), beside what it waits for there | 1 s | [`Error::Unreachable`], [`PushErrorKind::Unreachable`] |
//! | `handshake_timeout` | [`open_server`](Hub::open_server), `connection` and `join` of a connection that is being opened | 10 s | [`Error::Timeout`] |
//! | `message_timeout` | a message that was begun, without any more of it | 60 s | close code 1008 |
//! | `ping_interval` | nothing received | 20 s | a ping |
//! | `ping_timeout` | nothing received after a ping | 20 s | the connection is cut (1006) |
//! | `shared_idle_timeout` | a shared connection without messages; pings do not count | never | close code 1001 |
//! | `close_timeout` | from a close to the end of the client's stream | 5 s | the connection is cut |
//! | [`shutdown`](ServerHandle::shutdown) | handlers that have not returned | you say | their sockets are cut |
//! | `session_timeout` | values of a session that nobody uses | 900 s | they are removed |
//! | [`SessionCookie::max_age`] | the session's cookie in the browser | until the browser ends | the next visit has a new session |
//! | `thread_keep_alive` | a thread without a connection | 2 s | it ends |
//! | [flushing](#flushing) | answers that are collected | 1 ms, fixed | they are sent |
//!
//! A proxy has one more: it ends what is silent for some time, often 60 s. `ping_interval` has to be below it; the client's pong
//! is traffic in the other direction. Between two machines it is also what finds out that one has gone: in `ping_interval` and
//! `ping_timeout` together, 40 s.
//!
//! # Strangers' pages
//!
//! A browser lets any page open a WebSocket to any server, with the cookies of that server. So a handshake with an `Origin` is
//! answered with 403 unless the page is of the same host, or of those that [`ServerBuilder::origins`] allows; and so is a request
//! such as POST. A stranger's page can also make a browser take the stranger's own name for an address in the browser's network
//! (DNS rebinding), and so be of the same host as a server there. So where a connection's own address is loopback or private,
//! pages and their handshakes are answered with 421 if their `Host` is a name that a stranger can own: see
//! [`ServerBuilder::hosts`].
//!
//! Routes, handlers and files compare one form of a path, however it was sent: see [`Request::path`].
//!
//! # Certificates
//!
//! A [`TlsIdentity`] is checked when it is loaded, and can be renewed while servers use it: [`TlsIdentity::watch`] loads its files
//! again whenever they change, [`TlsIdentity::reload`] when you ask for it, and [`TlsIdentity::replace`] takes one that you have.
//! Connections that begin get the new certificate, and those that are open go on with theirs. What cannot be used, such as a
//! certificate whose key has not been written yet, is refused with a line in the log, and the one from before stays. The CA of
//! [clients](TlsIdentity::with_client_ca) is loaded again in the same way.
//!
//! From 30 days before a certificate of the chain ends, the thread of [`Server::run`] says so in the log, once a day;
//! [`Hub::certificates`] tells when, for metrics. The certificates of this crate's own tests, whose key is public, are there for yours
//! (feature `test-certs`): a warning in the log says where they are used on an address that is not loopback.
//!
//! # Log
//!
//! The library writes to the `log` facade; what becomes of it is your program's choice. What a client has sent, such as a path or
//! the reason of its close frame, stands in it on one line, escaped (control characters, line ends, marks of direction and
//! whatever else cannot be seen), and cut to 200 characters; of an ID there are the first 8.
//!
//! What clients do wrong makes no lines above the level `debug`: refused handshakes, connections without a request, protocol
//! errors, clients that are too slow or one too many. They are counted by kind, and summed up once a minute in one line, at `info`,
//! or at `warn` if a limit of the server or a handler was among the causes; the first ones are quoted in it. Failures of your
//! handlers have a line each at `error`, ten a minute at most.
//!
//! Lines are written by the thread that has something to say: of a connection, of the gateway, or the one that accepts. Your logger
//! must not hold it: one that waits for a reader or a disk makes clients wait. The `switchboard` command puts its lines into a
//! bounded queue for a thread that writes them, and drops what does not fit.
//!
//! # Dates
//!
//! Whatever waits, ends or is forgotten goes by the monotonic clock: nothing happens earlier or later because the machine's clock is
//! set. Dates, as in [`ConnectionInfo`], responses and the log, are of that clock as it is when they are asked for. Two things need
//! it right: certificates of clients, which are refused if it is not, and signed requests to the management listener, whose date
//! is not judged by a clock that was never set.
//!
//! # Shutdown
//!
//! [`ServerHandle::shutdown`] from any thread, with a grace period; or a [`RunningServer`] that is dropped. [`Server::run`]
//! returns when every thread is joined and every socket closed; a [`WebSocket`], a [`Pusher`] or a [`Hub`] may be kept longer,
//! and reports that all is closed.
//!
//! # Services
//!
//! What starts a program at boot may bind its sockets ([`ServerBuilder::listener`] and its kin take them over, with
//! those of [Unix sockets](ServerBuilder::listener_unix), too, with TLS (`listener_tls`), and for managing
//! (`Manage::listener`)), and may want a sign of life now and then, or it starts the program anew. Such a watchdog is to starve when the
//! server is stuck, not only when the process is gone: [`ServerHandle::check_progress`] tells. The `switchboard` command speaks the
//! protocol of systemd with it.
//!
//! # Memory
//!
//! Resident memory of the process, measured on Linux, x86-64, after each connection has echoed one message of 64 bytes:
//!
//! | connection | each |
//! |---|---|
//! | shared, plain, 18,000 of them on one gateway | 1.0 KiB |
//! | shared, TLS (OpenSSL 3), 2,000 of them | 15 KiB |
//! | shared, TLS (rustls), 1,000 of them | 5.3 KiB |
//! | synchronous, plain, 4,000 of them | 14.5 KiB, more than half of it the thread's stack |
//!
//! What a browser calls itself is kept once for all connections that say the same: with 18,000 that each said something else, 0.14
//! KiB more for each. A user, tags, a subprotocol or a forwarded address take memory only where there is one.
//!
//! Buffers grow with the bytes that arrive, never with the length that a frame announces, and are freed when they are empty.
//! Every part of a connection (its protocol, inbox and outbox) tells a common sum what it holds, if that has changed by more
//! than 8 KiB. Whoever sees the sum pass [`Limits::max_buffered_bytes`], the gateway or a thread that pushes, ends the largest
//! connections; to find them takes no connection's lock.
//!
//! # Conformance
//!
//! Both sides of RFC 6455 and RFC 7692. All 517 cases of the [Autobahn testsuite] pass strictly, over `ws://` and
//! `wss://`, for synchronous and for shared connections, with compression on, and for [clients](Client), which the testsuite serves;
//! three of them are informational only.
//! (`tests/run` skips those of groups 12 and 13, about compression, with messages above 8 KiB; `tests/run full` includes
//! them, and takes an hour longer.) Random sequences of frames get the same answer as from the Python package `websockets`;
//! the test, `tests/clients/differential.py`, lists the cases where the RFCs want another one.
//!
//! | | section | |
//! |---|---|---|
//! | opening handshake | 6455: 4.2, 10.2 | all checks; `Origin`; HTTP 400, 403, 405, 421, 426 |
//! | the same of a client | 6455: 4.1; 9110: 9.3.6 | all checks of the answer; CONNECT; interim responses are skipped, redirects are not followed |
//! | proxies | 7239; PROXY protocol 1 and 2 | `for` and `proto` of `Forwarded`; addresses, TLS and `LOCAL`, the rest is skipped |
//! | pages | 9112 | HTTP/1.1 and 1.0; bodies by length and chunked; keep-alive, pipelining; `Expect: 100-continue`; HTTP 400, 405, 408, 413, 417, 501 |
//! | frames | 6455: 5.2, 5.3 | unmasked frames, reserved bits and opcodes, lengths in more bytes than needed: 1002 |
//! | fragments | 6455: 5.4 | any number, with control frames between them; messages are sent unfragmented |
//! | control frames | 6455: 5.5 | each ping is answered with a pong |
//! | closing handshake | 6455: 5.5.1, 7 | codes 1000-1003, 1007-1014 and 3000-4999 both ways, others are answered with 1002; the server ends the stream first |
//! | text | 6455: 8.1 | checked as it arrives, not when it is complete: 1007 |
//! | subprotocols | 6455: 1.9, 4.2.2 | chosen by the application |
//! | files | 9110: 8.8, 12.5.3, 13, 14 | validators and all conditions; copies compressed by brotli or gzip; one range at a time |
//! | compression | 7692: 5, 7 | offers that are malformed or unknown are declined; windows of 9 to 15 bits for what the server sends, 8 to 15 for the client |
//!
//! Not supported: HTTP/2 (RFC 8441), and a window of 8 bits for what the server sends, because zlib does not support it.
//!
//! [Autobahn testsuite]: https://github.com/crossbario/autobahn-testsuite
//!
//! # Features
//!
//! - `tls` (default): `wss://` with the system's TLS library. All that is named `Tls…`, what takes it (`listen_tls`, [`ClientBuilder`]'s
//!   `tls`), `ClientCertificate`, `CertificateInfo`, and [`Hub`]'s `certificates` are there with this feature or the next one.
//! - `rustls`: `wss://` with rustls, instead of it or beside it; `TlsBackend` says what each can do. Without `tls` nothing of C is
//!   linked but libc, and with a musl target not even that.
//! - `tls-vendored`: `tls` with an OpenSSL that is built along and linked in, for cross builds where the target's is not to be had. It
//!   takes Perl, `make` and minutes.
//! - `manage` (default): other processes push to connections, list and close them, over HTTP, and people see them in a console:
//!   `ServerBuilder::manage`, which says it all.
//! - `remote`: the [hub of another process](Hub#in-another-process), over that listener: `Hub::connect`.
//! - `cluster`: [many machines](crate#many-machines) over Redis or Valkey, `ServerBuilder::cluster`, and sessions there, `RedisStore`.
//! - `test-certs`: certificates for tests of your own `wss://`, `switchboard::test_certs`; with `tls` or `rustls`.
//! - `cli` (default): the `switchboard` command. A program that only uses the library does not need it:
//!   `switchboard = { version = "0.1", default-features = false, features = ["tls"] }`.
//!
//! How small a program can be, and how it is built for another processor: [`cross_builds`].
//!
//! # Architecture
//!
//! From the lowest layer up. A module uses only modules of lower layers, and there are no cycles, not even between a module
//! and its submodules.
//!
//! | layer | module | what it holds |
//! |---|---|---|
//! | 0 | `error`, `message`, `limits`, `id`, `client_certificate`, `clock`, `deadline`, `interned`, `tags`, `sync`, `thread`, `caught`, `awaited`, `pulse`, `buffered`, `cgroups`, `memory`, `tasks`, `room`, `scarce`, `place`, `small_file` | values, time, locks, panics, memory, and what the box has of it; whether something is in this process or in another one; files that are read whole |
//! | 0 | `history` | what a topic remembers |
//! | 0 | `proxied` | what a proxy says of a client before the first byte: the PROXY protocol |
//! | 0 | `shown`, `seldom`, `incidents` | what the log shows of strangers, and how often |
//! | 1 | `codec` | bytes to messages and back, in memory: TLS, frames and compression |
//! | 1 | `http` | a request in, a response out; the opening handshake, both sides of it |
//! | 2 | `tls` | certificates and keys: read, checked, renewed, and given to the TLS library |
//! | 2 | `redis` | a connection to Redis or Valkey |
//! | 2 | `compression` | what is negotiated with a client |
//! | 2 | `session` | sessions, their cookie, and where they are stored |
//! | 2 | `protocol` | the state machine of one connection, without I/O: bytes, commands and the time in; bytes, messages and the next deadline out |
//! | 3 | `connection` | the protocol under its lock, the socket, what waits to be sent and to be read |
//! | 4 | `info`, `node_info`, `audience`, `observer` | what is told about connections, topics, users and nodes, who of them is meant, and who is told |
//! | 4 | `metrics` | what is counted as it happens, for whoever watches the server |
//! | 4 | `pending` | a connection that is being opened: what is pushed to it, and who waits for it |
//! | 4 | `gateway` | drives shared connections, receives for busy threads, keeps the deadlines |
//! | 4 | `wire`, `pushes` | what a hub in another process and the server say to each other, as bytes and values |
//! | 4 | `remote` | a link to another process: what was asked over it, and who waits for an answer |
//! | 4 | `elsewhere` | the connections of other nodes, as `registry` and `hub` see them |
//! | 5 | `registry` | connections by ID, path, route, topic and user |
//! | 6 | `opening`, `delivery`, `websocket`, `parked` | the types that your code uses; how it is called without a thread of its own |
//! | 7 | `hub` | finds connections and pushes to them |
//! | 8 | `answering` | what other processes ask of the hub, whatever brings it |
//! | 8 | `client` | the other end: from a URL to an open connection; what all clients of a process share |
//! | 9 | `cluster` | a node among others, over Redis |
//! | 10 | `server` | listeners, the threads of the connections, routes, shutdown |
//! | 11 | `manage` | a second server, by which other processes reach the hub of the first |
//!
//! The `switchboard` command uses only the public API, as your program does.
//!
//! A received message: `gateway` (or `read` of `connection`, on the connection's own thread) receives bytes, `protocol` takes
//! them in and asks `codec` for messages, the inbox of `connection` keeps them, and `websocket` or `parked` hands them to your
//! code. A pushed message: `hub` finds the connection in `registry`; `push` of `connection` locks the core, or, if another
//! thread has the lock, puts the message into the outbox, which that thread checks when it unlocks; `protocol` appends it to
//! the output, and the socket takes it. If the connection is still being opened, `registry` finds it in `pending`, whose queue it
//! takes over as its outbox when it is registered. Closing, whichever side begins it, is a phase of `protocol`; the thread that
//! drives the connection sends what is left, and completes it.
//!
//! The lock of a connection is held for microseconds, while it is decoded for 100 at most, and never during a wait: a thread that
//! reads waits in `recv` without it, so that another thread can write meanwhile, over TLS, too.

// Nothing that a peer or the system does may cause a panic; tests may unwrap.
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[cfg(not(unix))]
compile_error!("switchboard needs Unix: Linux, macOS or another one");

mod advice;
#[cfg(feature = "manage")]
mod answering;
mod audience;
mod awaited;
#[cfg(feature = "__bench")]
#[doc(hidden)]
pub mod benching;
mod buffered;
mod caught;
mod cgroups;
mod client;
#[cfg(feature = "__tls")]
mod client_certificate;
mod clock;
#[cfg(feature = "cluster")]
mod cluster;
mod codec;
mod compression;
mod connection;
#[cfg(doc)]
#[doc = include_str!("cross_builds.md")]
pub mod cross_builds {}
mod deadline;
mod delivery;
#[cfg(feature = "cluster")]
mod elsewhere;
mod error;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod history;
mod http;
mod hub;
mod id;
mod incidents;
mod info;
mod interned;
mod limits;
#[cfg(feature = "manage")]
mod manage;
mod memory;
mod message;
mod metrics;
mod node_info;
mod observer;
mod opening;
mod parked;
mod pending;
mod place;
mod protocol;
mod proxied;
mod pulse;
#[cfg(feature = "remote")]
mod pushes;
#[cfg(feature = "cluster")]
mod redis;
mod registry;
#[cfg(feature = "remote")]
mod remote;
mod room;
mod scarce;
mod seldom;
mod server;
mod session;
mod shown;
#[cfg(any(feature = "__tls", feature = "__wire"))]
mod small_file;
mod sync;
mod tags;
mod tasks;
#[cfg(all(feature = "test-certs", feature = "__tls"))]
pub mod test_certs;
mod thread;
#[cfg(feature = "__tls")]
mod tls;
mod websocket;
#[cfg(feature = "__wire")]
#[allow(dead_code, unused_imports)] // each end of a link uses its half
mod wire;

pub use ::bytes::Bytes;
pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

#[cfg(feature = "remote")]
pub use crate::client::{HubBuilder, HubError};
#[cfg(feature = "__tls")]
pub use crate::client_certificate::ClientCertificate;
#[cfg(feature = "manage")]
pub use crate::manage::Manage;
#[cfg(feature = "__tls")]
pub use crate::tls::{CertificateInfo, TlsBackend, TlsClientCa, TlsIdentity, TlsTrust, TlsVersion, TlsWatch};
pub use crate::{
    audience::{Audience, Recipients},
    client::{
        Accepted, BrokenError, Client, ClientBuilder, ClientError, ConnectError, ConnectStep,
        HandshakeResponse, LinkAttempt, LinkCounts, LinkEvent, LinkState, Reconnecting, ReconnectingBuilder,
        WhenFull,
    },
    compression::Compression,
    connection::{AdoptedStream, Overflow, PushError, PushErrorKind, Pushed, READ_TIMEOUT},
    delivery::Delivery,
    error::{BindError, CloseReason, ClosedBy, Error, OverLimit, Result, ServerError, TlsError},
    history::{History, InvalidPosition, Position, Since},
    http::{Files, Origins, ProxyHeaders, Refusal, Request, Response},
    hub::{Broadcast, Hub, Page, Publication, Published, Pusher},
    id::{InvalidId, NodeId, WebSocketId},
    info::ConnectionInfo,
    info::{PresentUser, Recovery, TopicInfo},
    limits::Limits,
    message::{CloseCode, Message, Payload, Text},
    node_info::NodeInfo,
    observer::HubObserver,
    opening::Opening,
    pulse::NoProgress,
    server::{Exchange, ListenAddr, RunningServer, Server, ServerBuilder, ServerHandle},
    session::{FoundSession, InvalidSessionId, Session, SessionCookie, SessionId, SessionStore, StoreResult},
    tags::{Tags, TagsIter},
    websocket::{Closed, Handled, Messages, READ_LEN, ServerResult, WebSocket, WebSocketServer},
};
#[cfg(feature = "cluster")]
pub use crate::{cluster::Cluster, redis::Redis, session::RedisStore};

/// Compiles the code in the README.
#[cfg(all(doctest, feature = "__tls", feature = "remote", feature = "cluster"))]
#[doc = include_str!("../README.md")]
struct Readme;
