//! What the command does: `connect` is a room of its own; `serve` starts a server, logs, and shuts down. Exit codes of `serve`: 0
//! normal shutdown, 1 error, 2 wrong usage, 130 interrupted twice.

mod allowance;
mod apps;
mod arenas;
mod args;
mod check;
mod cli;
#[cfg(feature = "__tls")]
mod client_tls;
mod clock;
mod clustering;
mod codes;
#[cfg(feature = "completions")]
mod completions;
mod connect;
mod dates;
mod descriptors;
mod escaped;
mod form;
mod help;
mod logging;
#[cfg(feature = "manage")]
mod manage;
mod page;
mod reader;
mod remote;
mod say;
mod session_key;
mod settings;
mod signals;
#[path = "../small_file.rs"] // it uses nothing of the library
mod small_file;
mod stdin;
mod systemd;
mod terminal;
mod times;
mod tips;
#[cfg(feature = "__tls")]
mod tls;
mod wall_clock;

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use log::{info, warn};
use nix::sys::signal::Signal;
#[cfg(feature = "__tls")]
use switchboard::TlsIdentity;
use switchboard::{Limits, ListenAddr, Origins, Server, ServerBuilder};

use self::{
    args::Serve,
    cli::{Cli, Command, Invocation},
    clock::Clock,
    descriptors::Needed,
    signals::{Blocked, stop_on_signals},
    systemd::{Service, Sockets},
};

/// The default of the library.
const MAX_CONNECTIONS: u32 = 4096;

pub(crate) fn main() -> ExitCode {
    arenas::limit(); // before anything is read, such as a file that is a pipe: it may begin anew
    let Invocation { command, warnings } = Cli::read_or_exit();
    if !matches!(command, Command::Serve(_) | Command::Check(_)) {
        warnings.iter().for_each(|text| say::say(text)); // these have a place of their own for them
    }
    match command {
        Command::Serve(args) => serve(&args, &warnings),
        Command::Check(args) => check::run(&args, &warnings),
        #[cfg(feature = "completions")]
        Command::Completions(args) => args.run(),
        #[cfg(feature = "completions")]
        Command::Man(args) => args.run(),
        Command::Connect(args) => connect::run(&args),
        Command::Remote(args) => args.run(),
    }
}

fn serve(args: &Serve, warnings: &[String]) -> ExitCode {
    match run(args, warnings) {
        Ok(()) => {
            log::logger().flush();
            ExitCode::SUCCESS
        }
        Err(e) => {
            logging::tell(format!("switchboard: {e}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Serve, warnings: &[String]) -> Result<(), Box<dyn Error>> {
    let hangup = Blocked::new(Signal::SIGHUP)?;
    let _full = Blocked::new(Signal::SIGXFSZ)?; // a file that may not become larger is an error of writing, and no end
    let sockets = Sockets::take()?;
    let log = logging::init(&args.log())?;
    wall_clock::warning().iter().for_each(|text| warn!("{text}"));
    warnings.iter().for_each(|text| warn!("{text}"));
    let mut clock = Clock::new();
    let chatters = Arc::<apps::Chatters>::default();
    let service = Service::from_env();
    let prepared = prepare(args, &clock, &chatters, sockets, Purpose::Serve);
    if let Some(e) = prepared.wrong.into_iter().next() {
        return Err(e);
    }
    #[cfg(feature = "__tls")]
    let identity = prepared.identity;
    let server = prepared.builder.bind()?;
    chatters.use_hub(server.hub());
    #[cfg(feature = "__tls")]
    let _watch = identity.as_ref().and_then(tls::watch);
    #[cfg(feature = "__tls")]
    let reload = move || tls::on_hangup(identity.as_ref(), log.again());
    #[cfg(not(feature = "__tls"))]
    let reload = move || signals::on_hangup(log.again());
    let reloading = service.clone();
    hangup.watch(move || reloading.reload(&reload))?;
    #[cfg(feature = "manage")]
    let managing = server.manage_addrs().len();
    #[cfg(not(feature = "manage"))]
    let managing = 0;
    let listeners = server.local_addrs().len() + server.redirect_addrs().len();
    descriptors::raise_limit(needed(args, listeners, managing));
    stop_on_signals(server.handle(), service.clone())?;
    announce(&server, args);
    clock.start(server.hub())?;
    service.watch(&server)?;
    let ended = server.run();
    service.stopping(0);
    drop(clock);
    ended?;
    info!("ended");
    Ok(())
}

/// A server that is to be bound, or to be looked at.
struct Prepared {
    builder: ServerBuilder,
    #[cfg(feature = "__tls")]
    identity: Option<TlsIdentity>,
    /// That of its cluster.
    #[cfg(feature = "cluster")]
    redis: Option<switchboard::Redis>,
    /// What the builder is without.
    wrong: Vec<Box<dyn Error>>,
}

/// What it is prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Serve,
    /// `is_running`: such a server is there already.
    Check {
        is_running: bool,
    },
}

/// All that `serve` and `check` do alike.
fn prepare(
    args: &Serve,
    clock: &Clock,
    chatters: &Arc<apps::Chatters>,
    mut sockets: Sockets,
    purpose: Purpose,
) -> Prepared {
    let mut wrong = Vec::new();
    let mut builder = chatters.clone().observe(configure(args, clock, &mut sockets));
    builder = match keys(args, purpose) {
        Ok(keys) => keys.into_iter().fold(builder, ServerBuilder::session_keys),
        Err(e) => {
            wrong.push(e.into());
            // The server does not start, and other nodes need not have this key.
            builder.session_keys([session_key::stand_in()]).use_session(false)
        }
    };
    #[cfg(feature = "cluster")]
    let redis = args.cluster.redis().unwrap_or_else(|e| {
        wrong.push(e);
        None
    });
    #[cfg(feature = "cluster")]
    let builder = args.cluster.join(builder, redis.clone(), purpose);
    #[cfg(feature = "__tls")]
    let identity = args.tls.identity().unwrap_or_else(|e| {
        wrong.push(e);
        None
    });
    #[cfg(feature = "__tls")]
    let builder = args.tls.listen(builder, identity.as_ref());
    #[cfg(feature = "__tls")]
    wrong.extend(sockets.check_tls(identity.as_ref()).err().map(Into::into));
    #[cfg(feature = "__tls")]
    let builder = sockets.listen_tls(builder, identity.as_ref());
    #[cfg(all(feature = "manage", feature = "__tls"))]
    let builder = args.manage.listen(builder, sockets.manage, identity.as_ref());
    #[cfg(all(feature = "manage", not(feature = "__tls")))]
    let builder = args.manage.listen(builder, sockets.manage);
    Prepared {
        builder,
        #[cfg(feature = "cluster")]
        redis,
        #[cfg(feature = "__tls")]
        identity,
        wrong,
    }
}

/// The keys of sessions, if there are to be some that outlive the server.
fn keys(args: &Serve, purpose: Purpose) -> Result<Option<Vec<String>>, String> {
    #[cfg(feature = "cluster")]
    if args.cluster.is_wanted() {
        return match &args.session_key_file {
            Some(path) => session_key::read_shared(path).map(Some),
            None => Err(format!("--cluster needs a --session-key-file: {}", session_key::MAKE_IT)),
        };
    }
    let read = if purpose == Purpose::Serve { session_key::read } else { session_key::rehearse };
    args.session_key_file.as_deref().map(read).transpose()
}

fn configure(args: &Serve, clock: &Clock, sockets: &mut Sockets) -> ServerBuilder {
    let mut limits = Limits::default();
    if let Some(most) = args.max_connections {
        limits.max_connections = most as usize;
    }
    limits.max_connections_per_address = args.max_connections_per_address.map(|n| n as usize);
    limits.max_message_size = args.max_message_size;
    limits.max_frame_size = args.max_message_size;
    limits.max_buffered_bytes = args.max_buffered_bytes;
    limits.workers = args.workers as usize;
    limits.gateways = args.gateways as usize;
    limits.ping_interval = (args.ping_interval > 0).then(|| Duration::from_secs(args.ping_interval));
    limits.ping_timeout = Duration::from_secs(args.ping_timeout);
    limits.stack_size = args.stack_size;
    let mut builder = Server::builder()
        .limits(limits)
        .compression(args.compress.into())
        .origins(origins(&args.allow_origin))
        .hosts(&args.host)
        .trusted_proxies(&args.trusted_proxy)
        .proxy_headers(args.proxy_headers.into())
        .proxy_protocol(&args.proxy_protocol)
        .route("/echo", || apps::Echo)
        .route("/csp/user/MyApp.MyWebSocketServer.cls", || apps::MyWebSocketServer)
        .route("/echo-shared", || apps::EchoShared)
        .route("/broadcast", apps::Broadcast::default)
        .route("/chat", apps::Chat::default)
        .route(clock::PATH, clock.factory());
    builder = match &args.www {
        Some(folder) => builder.files("/*", folder),
        None => page::serve(builder),
    };
    for (name, value) in &args.header {
        builder = builder.header(name.as_str(), value.as_str());
    }
    let addresses = if sockets.have_clients() { args.listen_beside() } else { args.listen() };
    for address in addresses {
        builder = builder.listen(address);
    }
    sockets.listen(builder)
}

/// What descriptors are needed for, with so many listeners for clients and for those who manage the server.
fn needed(args: &Serve, listeners: usize, managing: usize) -> Needed {
    Needed {
        connections: args.max_connections.unwrap_or(MAX_CONNECTIONS).into(),
        are_chosen: args.max_connections.is_some(),
        #[cfg(feature = "manage")]
        managing: manage::connections(managing),
        #[cfg(not(feature = "manage"))]
        managing: 0,
        files: args.www.is_some(),
        listeners: (listeners + managing) as u64,
        gateways: args.gateways.into(),
    }
}

fn origins(allowed: &[String]) -> Origins {
    let (same_host, list): (Vec<_>, Vec<_>) =
        allowed.iter().cloned().partition(|origin| origin == "same-host");
    match list.is_empty() {
        true => Origins::SameHost,
        false if list.iter().any(|origin| origin == "*") => Origins::Any,
        false if same_host.is_empty() => Origins::List(list),
        false => Origins::SameHostAnd(list),
    }
}

fn announce(server: &Server, args: &Serve) {
    for address in server.local_addrs() {
        let tls = if server.is_tls(address) { "s" } else { "" };
        match address {
            ListenAddr::Tcp(address) => {
                info!("http{tls}://{address}/ is the page");
                info!("ws{tls}://{address}/echo echoes whole messages");
                info!(
                    "ws{tls}://{address}/csp/user/MyApp.MyWebSocketServer.cls is the example of the IRIS documentation"
                );
                info!("ws{tls}://{address}/echo-shared echoes without a thread for each connection");
                info!(
                    "ws{tls}://{address}/broadcast sends each message to all clients on that path: 1 MiB a second of each, and 4 MiB at once"
                );
                info!(
                    "ws{tls}://{address}/chat?room=ROOM&name=NAME is a chat, of lines up to 16 KiB: 16 KiB a second of each, and 64 KiB at once; with &since= it tells what was said before"
                );
                info!("ws{tls}://{address}{} sends the time every second", clock::PATH);
            }
            other => info!("listening on {other}"),
        }
    }
    #[cfg(feature = "__tls")]
    tls::announce(server);
    #[cfg(feature = "manage")]
    manage::announce(server);
    if let Some(folder) = &args.www {
        info!("the pages are the files of {}", folder.display());
    }
}
