//! Starts, logs, and shuts down. Exit codes: 0 shut down in order, 1 failed, 2 wrong usage, 130 interrupted twice.

mod apps;
mod args;
mod logging;

use std::{
    error::Error,
    fs,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use clap::Parser;
use log::{info, warn};
use rustix::process::{Resource, getrlimit, setrlimit};
use switchboard::{Limits, ListenAddr, Origins, Response, Server, ServerHandle, TlsIdentity};

use self::args::{Cli, Serve};

/// How long connections have to end after Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);

const PAGE: &str = include_str!("page.html");

/// The page has nothing from elsewhere, and its sockets are its own.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
    connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) fn main() -> ExitCode {
    let serve = Cli::parse().serve();
    match run(&serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("switchboard: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Serve) -> Result<(), Box<dyn Error>> {
    logging::init(args.log_level, args.log_file.as_deref())?;
    raise_descriptor_limit(args.max_connections);
    let server = build(args)?;
    stop_on_signals(server.handle())?;
    announce(&server, args);
    server.run()?;
    info!("ended");
    Ok(())
}

fn build(args: &Serve) -> Result<Server, Box<dyn Error>> {
    let mut limits = Limits::default();
    limits.max_connections = args.max_connections as usize;
    limits.max_message_size = args.max_message_size;
    limits.max_frame_size = args.max_message_size;
    let mut builder = Server::builder()
        .limits(limits)
        .origins(origins(&args.allow_origin))
        .route("/echo", || apps::Echo)
        .route("/csp/user/MyApp.MyWebSocketServer.cls", || apps::MyWebSocketServer);
    builder = match &args.www {
        Some(folder) => builder.files("/*", folder),
        None => {
            builder.http("/", |_| Response::html(PAGE).with_header("content-security-policy", PAGE_POLICY))
        }
    };
    for address in args.listen() {
        builder = builder.listen(address);
    }
    if let Some(identity) = identity(args)? {
        for address in &args.tls_listen {
            builder = builder.listen_tls(address, identity.clone());
        }
    }
    Ok(builder.bind()?)
}

fn origins(allowed: &[String]) -> Origins {
    match allowed {
        [] => Origins::SameHost,
        list if list.iter().any(|origin| origin == "*") => Origins::Any,
        list => Origins::List(list.to_vec()),
    }
}

fn identity(args: &Serve) -> Result<Option<TlsIdentity>, Box<dyn Error>> {
    if let (Some(cert), Some(key)) = (&args.cert, &args.key) {
        return Ok(Some(TlsIdentity::from_pem_files(cert, key)?));
    }
    let (Some(identity), Some(password_file)) = (&args.identity, &args.password_file) else {
        return Ok(None);
    };
    let password = fs::read_to_string(password_file)
        .map_err(|e| format!("cannot read {}: {e}", password_file.display()))?;
    Ok(Some(TlsIdentity::from_pkcs12_file(identity, password.trim_end_matches(['\r', '\n']))?))
}

/// Every connection takes a descriptor, and the usual limit of 1,024 is only a default that may be raised.
fn raise_descriptor_limit(max_connections: u32) {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = u64::from(max_connections) + 64;
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        if setrlimit(Resource::Nofile, limit).is_err() || limit.current < Some(wanted) {
            warn!("the limit on open files is lower than --max-connections {max_connections}");
        }
    }
}

fn stop_on_signals(server: ServerHandle) -> Result<(), ctrlc::Error> {
    let interrupted = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if interrupted.swap(true, SeqCst) {
            warn!("stopped at once");
            std::process::exit(130);
        }
        info!("stopping; once more to stop at once");
        server.shutdown(GRACE);
    })
}

fn announce(server: &Server, args: &Serve) {
    for (i, address) in server.local_addrs().iter().enumerate() {
        // The plain ones were bound first; a name may have several addresses, so they are told apart by port and path.
        let tls = if is_tls(args, i, server.local_addrs()) { "s" } else { "" };
        match address {
            ListenAddr::Tcp(address) => {
                info!("http{tls}://{address}/ is the page");
                info!("ws{tls}://{address}/echo echoes whole messages");
                info!("ws{tls}://{address}/csp/user/MyApp.MyWebSocketServer.cls is the original's example");
            }
            other => info!("listening on {other}"),
        }
    }
    if let Some(folder) = &args.www {
        info!("pages are files of {}", folder.display());
    }
}

fn is_tls(args: &Serve, index: usize, addresses: &[ListenAddr]) -> bool {
    // Each --tls-listen has at least one address, and they are the last.
    !args.tls_listen.is_empty()
        && (args.listen().is_empty() || index >= addresses.len() - args.tls_listen.len())
}
