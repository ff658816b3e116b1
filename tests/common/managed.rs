//! A server that is managed by other processes, and how they ask.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Mutex, OnceLock},
    time::SystemTime,
};

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use switchboard::{Audience, Hub, Manage, Opening, Overflow, Refusal, RunningServer, Server, ServerBuilder};
use tungstenite::{Message, client::IntoClientRequest};

use super::{
    Client, PATIENCE, Scheme, Stream, echo,
    folder::Folder,
    full_app, identity,
    reply::{Reply, ask},
};

pub const TOKEN: &str = "the-token-of-these-tests";
pub const READ_TOKEN: &str = "and-the-one-for-reading";

/// How a management listener is reached.
#[derive(Clone, Debug)]
pub enum Way {
    Unix(PathBuf),
    Tcp(SocketAddr, Scheme),
}

pub trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

impl Way {
    pub fn connect(&self) -> Box<dyn Both> {
        match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Box::new(stream)
            }
            Self::Tcp(address, scheme) => Box::new(Stream::connect(*address, *scheme)),
        }
    }

    /// The header line that is needed here.
    pub fn authorization(&self) -> String {
        match self {
            Self::Unix(_) => String::new(),
            Self::Tcp(..) => format!("Authorization: Bearer {TOKEN}\r\n"),
        }
    }

    /// A request and its body, with what is needed.
    pub fn request(&self, request: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
        with_lines(request, &self.authorization(), body)
    }

    /// Asks on a connection of its own.
    pub fn ask(&self, request: &str, body: impl AsRef<[u8]>) -> Reply {
        ask(&mut self.connect(), self.request(request, body))
    }

    pub fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path}"), "")
    }
}

/// A request such as `GET /`; without a body it has no length.
pub fn with_lines(request: &str, lines: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut head = format!("{request} HTTP/1.1\r\nHost: box.example\r\n{lines}");
    if !body.is_empty() {
        write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// Signs a request as clients of AWS do, with a token as their secret key, and more header lines that are signed, too (`name: value`,
/// in small letters). Its digest of the body is not sent unless one of these lines has it.
pub fn signed(request: &str, lines: &[&str], body: &[u8], token: &str) -> Vec<u8> {
    let hmac = |key: &[u8], text: &str| {
        let mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.chain_update(text).finalize().into_bytes().to_vec()
    };
    let digest = |bytes: &[u8]| HEXLOWER.encode(&Sha256::digest(bytes));
    let date = amz_date(SystemTime::now());
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, "")); // of one parameter
    let path = path.replace('%', "%25").replace('@', "%40").replace('$', "%24");
    let mut all: Vec<_> = lines.iter().map(|line| line.split_once(": ").unwrap()).collect();
    let of_lines = |name| all.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
    let content = of_lines("x-amz-content-sha256").unwrap_or_else(|| digest(body));
    all.extend([("host", "box.example"), ("x-amz-date", &*date)]);
    all.sort_unstable();
    let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
    let headers: String = all.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let names = names.join(";");
    let canonical = format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{content}");
    let scope = format!("{}/eu-central-1/execute-api/aws4_request", &date[..8]);
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", digest(canonical.as_bytes()));
    let key = scope.split('/').fold(format!("AWS4{token}").into_bytes(), |key, part| hmac(&key, part));
    let signature = HEXLOWER.encode(&hmac(&key, &text));
    let mut all = format!(
        "Authorization: AWS4-HMAC-SHA256 Credential=any/{scope}, SignedHeaders={names}, Signature={signature}\r\n\
         X-Amz-Date: {date}\r\n"
    );
    lines.iter().for_each(|line| write!(all, "{line}\r\n").unwrap());
    with_lines(request, &all, body)
}

/// Such as `20261126T142530Z`.
fn amz_date(time: SystemTime) -> String {
    let http = httpdate::fmt_http_date(time); // `Thu, 26 Nov 2026 14:25:30 GMT`
    let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(&http[8..11]).unwrap() / 3 + 1;
    format!("{}{month:02}{}T{}Z", &http[12..16], &http[5..7], http[17..25].replace(':', ""))
}

/// The JSON of an answer with this status.
pub fn value(reply: &Reply, status: u16) -> Value {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply:?}");
    serde_json::from_slice(&reply.body).unwrap()
}

/// The message of a refusal.
pub fn refusal(reply: &Reply, status: u16) -> String {
    let value = value(reply, status);
    assert_eq!(value.as_object().unwrap().len(), 1, "{value}");
    value["message"].as_str().unwrap().to_owned()
}

/// The same of one that AWS's clients know.
pub fn aws_refusal(reply: &Reply, status: u16, kind: &str) -> String {
    assert_eq!(reply.header("x-amzn-errortype"), Some(kind), "{reply:?}");
    refusal(reply, status)
}

/// A push was taken: whether it was sent at once depends on what the connection's thread just does.
pub fn assert_pushed(reply: &Reply) {
    let value = value(reply, 200);
    assert!(["sent", "queued"].map(|result| json!({"result": result})).contains(&value), "{value}");
}

/// How many connections were reached, and what is said beside that.
pub fn reached(mut value: Value) -> (u64, Value) {
    let mut take = |name: &str| value.as_object_mut().unwrap().remove(name).unwrap().as_u64().unwrap();
    let (reached, missed) = (take("sent") + take("queued"), take("dropped") + take("gone"));
    assert_eq!(missed, 0);
    (reached, value)
}

/// By Unix sockets in this folder, over TCP, and TLS.
pub fn in_all_ways(folder: &Folder) -> Manage {
    Manage::new()
        .listen(format!("unix:{}", folder.path("all")))
        .listen("127.0.0.1:0")
        .listen_tls("127.0.0.1:0", identity())
        .listen_read_only(format!("unix:{}", folder.path("read")))
        .listen_read_only("127.0.0.1:0")
        .token(TOKEN)
        .read_token(READ_TOKEN)
}

/// A server that is managed in all ways: by a Unix socket, over TCP, and TLS.
pub struct Managed {
    pub server: RunningServer,
    pub folder: Folder,
}

impl Managed {
    pub fn new() -> Self {
        Self::with(|builder| builder, |manage| manage)
    }

    pub fn with(
        configure: impl FnOnce(ServerBuilder) -> ServerBuilder,
        configure_manage: impl FnOnce(Manage) -> Manage,
    ) -> Self {
        log_everything();
        let folder = Folder::new();
        let manage = in_all_ways(&folder);
        let builder = Server::builder().listen("127.0.0.1:0").route("/*", || full_app(open, echo, |_| {}));
        let builder = configure(builder).manage(configure_manage(manage));
        Self { server: builder.bind().unwrap().spawn().unwrap(), folder }
    }

    pub fn hub(&self) -> Hub {
        self.server.hub()
    }

    pub fn tcp(&self, n: usize) -> SocketAddr {
        self.server.manage_addrs()[n].tcp().unwrap()
    }

    pub fn unix(&self) -> Way {
        Way::Unix(self.folder.join("all"))
    }

    pub fn plain(&self) -> Way {
        Way::Tcp(self.tcp(1), Scheme::Ws)
    }

    pub fn ways(&self) -> [Way; 3] {
        [self.unix(), self.plain(), Way::Tcp(self.tcp(2), Scheme::Wss)]
    }

    /// A client of the server, and its ID.
    pub fn client(&self, path: &str) -> (Client, String) {
        let known: Vec<_> = self.ids();
        let address = self.server.local_addrs()[0].tcp().unwrap();
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        request.headers_mut().insert("user-agent", "a \"test\"\t1".parse().unwrap());
        let (client, _) = tungstenite::client(request, Stream::connect(address, Scheme::Ws)).unwrap();
        let new = self.ids().into_iter().find(|id| !known.contains(id)).unwrap();
        (client, new)
    }

    pub fn ids(&self) -> Vec<String> {
        self.hub().all_connections(Audience::All).map(|info| info.unwrap().id.to_string()).collect()
    }
}

/// The query says who a connection is.
pub fn open(opening: &mut Opening) -> Result<(), Refusal> {
    let query = |name| opening.request().query_value(name).map(|value| value.into_owned());
    let (user, topic, drop) = (query("user"), query("topic"), query("drop"));
    if let Some(user) = user {
        opening.set_user(&user)?;
        opening.set_tag("device", "a \"box\"")?;
    }
    if let Some(topic) = topic {
        opening.join(&topic)?;
    }
    if drop.is_some() {
        opening.set_overflow(Overflow::DropNewest);
    }
    Ok(())
}

pub fn text(text: &str) -> Message {
    Message::text(text)
}

/// All lines of the log of this test program.
pub static LOG: Mutex<String> = Mutex::new(String::new());

pub fn log_everything() {
    struct Keeper;
    impl log::Log for Keeper {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            if record.target().starts_with("switchboard") {
                writeln!(LOG.lock().unwrap(), "{} {}", record.level(), record.args()).unwrap();
            }
        }
        fn flush(&self) {}
    }
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        log::set_logger(&Keeper).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
}
