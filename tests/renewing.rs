#![cfg(all(feature = "__tls", not(target_vendor = "apple")))]
//! Certificates that are renewed while the server runs, what is said of those that end, and of the one that is no secret.

mod common;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Mutex, Once, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, SystemTime},
};

use common::{
    PATIENCE, SharedEcho, Until, app,
    authority::{self, Certified, DAY, Kind},
    backends, echo, eventually,
    folder::Folder,
    running::Running,
};
use log::Level;
use native_tls::{TlsConnector, TlsStream};
use switchboard::{Server, TlsBackend, TlsIdentity};
use tungstenite::{Message, WebSocket};

/// What the library logs: level and text.
struct Log(Mutex<Vec<(Level, String)>>);

static LOG: Log = Log(Mutex::new(Vec::new()));

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= Level::Info && metadata.target().starts_with("switchboard")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// A folder; and from now on the log is kept.
fn begin() -> Folder {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&LOG).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
    Folder::new()
}

/// The lines of this level that name the folder, and hold this text.
fn logged(folder: &Folder, level: Level, text: &str) -> Vec<String> {
    let folder = folder.path("");
    let lines = LOG.0.lock().unwrap();
    let of = |(of, line): &&(Level, String)| *of == level && line.contains(&folder) && line.contains(text);
    lines.iter().filter(of).map(|(_, line)| line.clone()).collect()
}

/// A certificate of its own, and no issuer: nothing to warn of. Each ends at another time.
fn certified(name: &str) -> Certified {
    static MADE: AtomicI64 = AtomicI64::new(0);
    valid(name, (-DAY, 90 * DAY + 60 * MADE.fetch_add(1, SeqCst)))
}

fn valid(name: &str, valid: (i64, i64)) -> Certified {
    Kind { valid, ..Kind::server(name) }.signed()
}

fn identity(certified: &Certified) -> TlsIdentity {
    let identity = TlsIdentity::from_pem(certified.pem().as_bytes(), certified.key_pem().as_bytes()).unwrap();
    identity.with_backend(common::identity().backend())
}

/// Writes the two files into themselves, if they are there.
fn write(folder: &Path, certified: &Certified) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("cert.pem"), certified.pem()).unwrap();
    fs::write(folder.join("key.pem"), certified.key_pem()).unwrap();
}

fn load(folder: &Path) -> TlsIdentity {
    let identity = TlsIdentity::from_pem_files(folder.join("cert.pem"), folder.join("key.pem")).unwrap();
    identity.with_backend(common::identity().backend())
}

/// A server with this identity, an echo at `/`, and a shared one at `/shared`; and its address.
fn bound(identity: &TlsIdentity) -> (Running, SocketAddr) {
    let builder = Server::builder().listen_tls("127.0.0.1:0", identity.clone());
    let running = Running::new(builder.route("/", || app(echo)).route("/shared", || SharedEcho));
    let address = running.addresses[0].tcp().unwrap();
    (running, address)
}

fn handshake(address: SocketAddr) -> TlsStream<TcpStream> {
    handshake_for("localhost", address)
}

fn handshake_for(name: &str, address: SocketAddr) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    // Made once, because that takes longer than a handshake.
    static CONNECTOR: OnceLock<TlsConnector> = OnceLock::new();
    let make = || {
        let builder = &mut TlsConnector::builder();
        builder.danger_accept_invalid_certs(true).disable_built_in_roots(true).build().unwrap()
    };
    CONNECTOR.get_or_init(make).connect(name, tcp).unwrap()
}

/// The certificate that a client gets who comes now.
fn served(address: SocketAddr) -> Vec<u8> {
    handshake(address).peer_certificate().unwrap().unwrap().to_der().unwrap()
}

fn is_served(address: SocketAddr, certified: &Certified) -> bool {
    served(address) == certified.certificate.to_der().unwrap()
}

type Client = WebSocket<TlsStream<TcpStream>>;

fn connect(address: SocketAddr, path: &str) -> Client {
    tungstenite::client(format!("wss://localhost{path}"), handshake(address)).unwrap().0
}

fn assert_echoes(client: &mut Client, text: &str) {
    client.send(Message::text(text)).unwrap();
    loop {
        match client.read().unwrap() {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return assert_eq!(message, Message::text(text)),
        }
    }
}

fn path(n: usize) -> &'static str {
    ["/", "/shared"][n % 2]
}

/// Nobody who is there notices, and whoever comes gets the certificate of that moment.
#[test]
fn open_connections_live_on_and_new_ones_get_the_current_certificate() {
    for backend in backends() {
        renew_under_load(backend);
    }
}

fn renew_under_load(backend: TlsBackend) {
    const CLIENTS: usize = 100;
    let folder = begin();
    let all: Vec<Certified> = (0..4).map(|n| certified(&format!("number {n}"))).collect();
    write(&folder, &all[0]);
    let identity = load(&folder).with_backend(backend);
    let (server, address) = bound(&identity);
    let mut open: Vec<Client> = (0..CLIENTS).map(|n| connect(address, path(n))).collect();
    let talk = |open: &mut Vec<Client>| {
        open.iter_mut().enumerate().for_each(|(n, client)| assert_echoes(client, &n.to_string()));
    };
    talk(&mut open);
    // The certificate in use is one from the first to the last of these.
    let (first, last) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let come = AtomicUsize::new(0);
    let renewed = AtomicBool::new(false);
    thread::scope(|scope| {
        let _until = Until(&renewed);
        let newcomers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut clients = Vec::new();
                    while !renewed.load(SeqCst) || come.load(SeqCst) < CLIENTS {
                        let earliest = first.load(SeqCst);
                        let stream = handshake(address);
                        let latest = last.load(SeqCst);
                        let got = stream.peer_certificate().unwrap().unwrap().to_der().unwrap();
                        let number = all.iter().position(|c| c.certificate.to_der().unwrap() == got).unwrap();
                        assert!((earliest..=latest).contains(&number), "{earliest} {number} {latest}");
                        let n = come.fetch_add(1, SeqCst);
                        if n < CLIENTS {
                            let url = format!("wss://localhost{}", path(n));
                            clients.push(tungstenite::client(url, stream).unwrap().0);
                        }
                    }
                    clients
                })
            })
            .collect();
        for number in 1..4 {
            let before = come.load(SeqCst);
            eventually("some come between two renewals", || come.load(SeqCst) >= before + 10);
            last.store(number, SeqCst);
            match number {
                1 => identity.replace(&self::identity(&all[1])).unwrap(),
                2 => {
                    write(&folder, &all[2]);
                    assert!(identity.reload().unwrap());
                }
                _ => {
                    let _watch = identity.watch().unwrap();
                    write(&folder, &all[3]);
                    eventually("it is seen", || is_served(address, &all[3]));
                }
            }
            first.store(number, SeqCst);
            talk(&mut open);
            assert!(is_served(address, &all[number]));
        }
        renewed.store(true, SeqCst);
        for newcomers in newcomers {
            open.extend(newcomers.join().unwrap());
        }
    });
    assert_eq!(open.len(), 2 * CLIENTS);
    talk(&mut open);
    // Those that only looked at the certificate have left.
    eventually("all others are gone", || server.handle.connections() == 2 * CLIENTS);
}

#[test]
fn all_clones_and_all_servers_have_the_new_one() {
    begin();
    let (old, new) = (certified("old"), certified("new"));
    let identity = identity(&old);
    let ((_one, one), (_other, other)) = (bound(&identity), bound(&identity.clone()));
    assert!(is_served(one, &old) && is_served(other, &old));
    let newer = self::identity(&new);
    identity.clone().replace(&newer).unwrap();
    assert!(is_served(one, &new) && is_served(other, &new));
    assert_eq!(identity.not_after(), newer.not_after());
    // It was taken over once: they are two, as before.
    newer.replace(&self::identity(&old)).unwrap();
    assert!(is_served(one, &new));
    identity.replace(&identity.clone()).unwrap();
    assert!(is_served(one, &new));
}

#[test]
fn what_cannot_be_used_is_refused_and_the_one_before_stays() {
    let folder = begin();
    let (old, new) = (certified("old"), certified("new"));
    write(&folder, &old);
    let identity = load(&folder);
    let (_server, address) = bound(&identity);
    let refused = |words: &[&str]| {
        let error = identity.reload().unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{words:?}: {error}");
        assert!(is_served(address, &old));
    };
    let half = |pem: String| pem[..pem.len() / 2].to_owned();
    folder.write("cert.pem", new.pem());
    refused(&["cert.pem with", "key.pem: the key does not match the certificate \"CN=new\""]);
    folder.write("cert.pem", half(new.pem()));
    refused(&["cert.pem: certificate 1 cannot be read: it is cut off"]);
    folder.write("cert.pem", "");
    refused(&["cert.pem: ", "it is empty"]);
    fs::remove_file(folder.path("cert.pem")).unwrap();
    refused(&["cert.pem: No such file"]);
    write(&folder, &new);
    folder.write("key.pem", half(new.key_pem()));
    refused(&["key.pem: the key cannot be read: it is cut off"]);
    fs::remove_file(folder.path("key.pem")).unwrap();
    refused(&["key.pem: No such file"]);
    fs::create_dir(folder.path("key.pem")).unwrap();
    refused(&["key.pem again: it is no regular file"]);
    fs::remove_dir(folder.path("key.pem")).unwrap();
    // Nobody writes into it: whoever opened it would wait for ever.
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.path("key.pem"), rustix::fs::Mode::RWXU).unwrap();
    refused(&["key.pem again: it is no regular file"]);
    fs::remove_file(folder.path("key.pem")).unwrap();
    write(&folder, &old);
    assert!(!identity.reload().unwrap(), "nothing new");
    write(&folder, &new);
    assert!(identity.reload().unwrap() && !identity.reload().unwrap());
    assert!(is_served(address, &new));
    // What the program has given it is not what is in its files.
    identity.replace(&self::identity(&old)).unwrap();
    assert!(identity.reload().unwrap() && is_served(address, &new));
    assert_eq!(logged(&folder, Level::Info, "the certificate \"CN=new\", valid until 20").len(), 2);
    assert!(self::identity(&old).reload().unwrap_err().to_string().contains("not loaded from files"));
    assert!(self::identity(&old).watch().unwrap_err().to_string().contains("not loaded from files"));
}

#[test]
fn one_out_of_its_time_does_not_replace_a_good_one() {
    let folder = begin();
    let good = certified("good");
    write(&folder, &good);
    let identity = load(&folder);
    for (name, time) in [("expired", (-3 * DAY, -DAY)), ("early", (DAY, 3 * DAY))] {
        write(&folder, &valid(name, time));
        let error = identity.reload().unwrap_err().to_string();
        assert!(error.contains(&format!("the certificate \"CN={name}\" is valid from 20")), "{error}");
        assert_eq!(identity.not_after(), self::identity(&good).not_after());
        assert_eq!(logged(&folder, Level::Warn, name), [""; 0], "it is not used");
    }
    // But one that is no worse is taken: the clock may be wrong.
    let expired = valid("before", (-9 * DAY, -2 * DAY));
    identity.replace(&self::identity(&expired)).unwrap();
    let later = valid("later", (-3 * DAY, -DAY));
    write(&folder, &later);
    assert!(identity.reload().unwrap());
    assert_eq!(identity.not_after(), self::identity(&later).not_after());
    assert_eq!(logged(&folder, Level::Warn, "\"CN=later\" has expired").len(), 1);
}

#[cfg(feature = "tls")]
#[test]
fn an_archive_is_loaded_again_and_so_is_its_password() {
    let folder = begin();
    let archive = |certified: &Certified, password: &str| {
        let mut builder = openssl::pkcs12::Pkcs12::builder();
        builder.pkey(&certified.key).cert(&certified.certificate);
        builder.build2(password).unwrap().to_der().unwrap()
    };
    let (old, new) = (certified("old"), certified("new"));
    let file = folder.write("server.p12", archive(&old, "secret"));
    let password = folder.write("password", "secret\r\n");
    let of_file = TlsIdentity::from_pkcs12_files(&file, &password).unwrap();
    let known = TlsIdentity::from_pkcs12_file(&file, "secret").unwrap();
    assert!(!of_file.reload().unwrap() && !known.reload().unwrap());
    folder.write("server.p12", archive(&new, "other"));
    for identity in [&of_file, &known] {
        assert!(
            identity.reload().unwrap_err().to_string().contains("password of the PKCS#12 archive is wrong")
        );
    }
    folder.write("password", "other");
    assert!(of_file.reload().unwrap() && !of_file.reload().unwrap());
    known.reload().unwrap_err();
    folder.write("server.p12", archive(&new, "secret"));
    assert!(known.reload().unwrap());
    folder.write("password", b"\xff\xfe");
    let error = TlsIdentity::from_pkcs12_files(&file, &password).unwrap_err().to_string();
    assert!(error.contains(&password) && error.contains("UTF-8"), "{error}");
    let error = TlsIdentity::from_pkcs12_files(&file, folder.path("none")).unwrap_err().to_string();
    assert!(error.contains("cannot read") && error.contains("none: No such file"), "{error}");
}

/// A way in which files come to have something else in them: begins with the folder, and then renews.
struct Way {
    name: &'static str,
    /// At no moment there is a certificate without its key.
    at_once: bool,
    begin: fn(&Path, &Certified),
    renew: fn(&Path, &Certified),
}

/// Writes both files into a new folder, and turns a link to it: as Kubernetes does, and many a script.
fn turn(link: &Path, folder: &Path, certified: &Certified) {
    write(folder, certified);
    let new_link = link.with_file_name(format!("{}_tmp", link.file_name().unwrap().display()));
    symlink(folder.file_name().unwrap(), &new_link).unwrap();
    fs::rename(new_link, link).unwrap();
}

/// Writes a file that is there at once.
fn put(folder: &Path, name: &str, content: &str) {
    fs::write(folder.join("tmp"), content).unwrap();
    fs::rename(folder.join("tmp"), folder.join(name)).unwrap();
}

fn rename_over(folder: &Path, certified: &Certified) {
    put(folder, "key.pem", &certified.key_pem());
    put(folder, "cert.pem", &certified.pem());
}

/// `live/cert.pem` leads to `archive/certN.pem`.
fn certbot(folder: &Path, certified: &Certified, number: usize) {
    for part in ["live/box", "archive/box"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    for (name, content) in [("cert", certified.pem()), ("key", certified.key_pem())] {
        let file = format!("archive/box/{name}{number}.pem");
        fs::write(folder.join(&file), content).unwrap();
        let link = folder.join(format!("live/box/{name}.pem"));
        let _ = fs::remove_file(&link);
        symlink(format!("../../{file}"), &link).unwrap();
    }
    for name in ["cert.pem", "key.pem"] {
        let _ = fs::remove_file(folder.join(name));
        symlink(format!("live/box/{name}"), folder.join(name)).unwrap();
    }
}

const WAYS: [Way; 8] = [
    Way { name: "in place", at_once: false, begin: write, renew: write },
    Way { name: "by renaming", at_once: false, begin: write, renew: rename_over },
    Way {
        name: "by certbot",
        at_once: false,
        begin: |folder, certified| certbot(folder, certified, 1),
        renew: |folder, certified| certbot(folder, certified, 2),
    },
    Way {
        name: "by Kubernetes",
        at_once: true,
        begin: |folder, certified| {
            fs::create_dir_all(folder).unwrap();
            turn(&folder.join("..data"), &folder.join("..2026_1"), certified);
            for name in ["cert.pem", "key.pem"] {
                symlink(format!("..data/{name}"), folder.join(name)).unwrap();
            }
        },
        renew: |folder, certified| {
            turn(&folder.join("..data"), &folder.join("..2026_2"), certified);
            fs::remove_dir_all(folder.join("..2026_1")).unwrap();
        },
    },
    Way {
        name: "by a link to the folder",
        at_once: true,
        begin: |folder, certified| turn(folder, &folder.with_extension("1"), certified),
        renew: |folder, certified| turn(folder, &folder.with_extension("2"), certified),
    },
    Way {
        name: "by a link far up",
        at_once: false,
        begin: |folder, certified| {
            let top = folder.parent().unwrap().join("far");
            write(&top.join("one/deep"), certified);
            symlink("far/current/deep", folder).unwrap();
            symlink(top.join("one"), top.join("current")).unwrap();
        },
        renew: |folder, certified| {
            let top = folder.parent().unwrap().join("far");
            write(&top.join("two/deep"), certified);
            fs::remove_file(top.join("current")).unwrap();
            symlink("./../far/two", top.join("current")).unwrap();
        },
    },
    Way {
        name: "in a new folder of the same name",
        at_once: false,
        begin: write,
        renew: |folder, certified| {
            fs::remove_dir_all(folder).unwrap();
            thread::sleep(Duration::from_millis(20));
            write(folder, certified);
        },
    },
    Way {
        name: "in a new folder that is renamed",
        at_once: false,
        begin: write,
        renew: |folder, certified| {
            write(&folder.with_extension("new"), certified);
            fs::rename(folder, folder.with_extension("old")).unwrap();
            fs::rename(folder.with_extension("new"), folder).unwrap();
        },
    },
];

#[test]
fn changed_files_are_loaded_however_they_are_changed() {
    let folder = begin();
    thread::scope(|scope| {
        for way in &WAYS {
            let folder = &folder;
            scope.spawn(move || {
                let of_way = folder.join(way.name.replace(' ', "-"));
                fs::create_dir(&of_way).unwrap();
                let certs = of_way.join("certs");
                let all: Vec<_> = (0..2).map(|n| certified(&format!("{} {n}", way.name))).collect();
                (way.begin)(&certs, &all[0]);
                let identity = load(&certs);
                let _watch = identity.watch().unwrap();
                let (_server, address) = bound(&identity);
                assert!(is_served(address, &all[0]), "{}", way.name);
                thread::sleep(Duration::from_millis(50)); // the watch may see it as it was, or else already renewed
                (way.renew)(&certs, &all[1]);
                eventually(way.name, || is_served(address, &all[1]));
                let complaints =
                    || logged(folder, Level::Error, of_way.file_name().unwrap().to_str().unwrap());
                assert!(!way.at_once || complaints().is_empty(), "{:#?}", complaints());
                // And once more, wherever the files are now.
                write(&certs, &all[0]);
                eventually(way.name, || is_served(address, &all[0]));
            });
        }
    });
}

#[test]
fn what_is_bad_is_said_once_and_tried_again_at_the_next_change() {
    let folder = begin();
    let (old, new) = (certified("old"), certified("new"));
    write(&folder, &old);
    let identity = load(&folder);
    let _watch = identity.watch().unwrap();
    let (_server, address) = bound(&identity);
    let errors = |text: &str| logged(&folder, Level::Error, text);
    let half = new.key_pem()[..100].to_owned();
    put(&folder, "cert.pem", &new.pem());
    eventually("said", || errors("does not match").len() == 1);
    put(&folder, "key.pem", &half);
    eventually("said", || errors("cut off").len() == 1);
    fs::remove_file(folder.path("key.pem")).unwrap();
    eventually("said", || errors("No such file").len() == 1);
    assert!(is_served(address, &old));
    put(&folder, "key.pem", &new.key_pem());
    eventually("renewed", || is_served(address, &new));
    let all = errors("");
    assert_eq!(all.len(), 3, "{all:#?}");
    assert!(all.iter().all(|line| line.ends_with("; what was loaded before stays in use")), "{all:#?}");
    // It is told a moment after it is used.
    let told = || logged(&folder, Level::Info, "").len();
    eventually("it is told", || told() == 1);
    // A touch is no news.
    fs::File::open(folder.path("cert.pem")).unwrap().set_modified(SystemTime::now()).unwrap();
    write(&folder, &old);
    eventually("renewed", || is_served(address, &old));
    eventually("it is told, too", || told() > 1);
    assert_eq!(told(), 2);
}

#[test]
fn a_folder_where_much_else_happens_does_not_matter() {
    let folder = begin();
    let all = [certified("old"), certified("new")];
    write(&folder, &all[0]);
    let identity = load(&folder);
    let _watch = identity.watch().unwrap();
    let (_server, address) = bound(&identity);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _until = Until(&done);
        scope.spawn(|| {
            while !done.load(SeqCst) {
                folder.write("other", "x");
                thread::sleep(Duration::from_millis(1));
            }
        });
        for n in [1, 0, 1] {
            write(&folder, &all[n]);
            eventually("renewed", || is_served(address, &all[n]));
        }
    });
}

#[test]
fn files_that_change_before_they_are_watched_are_seen_and_after_it_they_are_left_alone() {
    let folder = begin();
    let (old, new) = (certified("old"), certified("new"));
    write(&folder, &old);
    let identity = load(&folder);
    write(&folder, &new);
    let watch = identity.watch().unwrap();
    eventually("it is renewed", || identity.not_after() == self::identity(&new).not_after());
    drop(watch);
    write(&folder, &old);
    thread::sleep(Duration::from_millis(600));
    assert_eq!(logged(&folder, Level::Info, "is used from now on").len(), 1);
}

#[test]
fn certificate_and_key_may_be_in_one_file() {
    let folder = begin();
    let (old, new) = (certified("old"), certified("new"));
    let write = |certified: &Certified| put(&folder, "both.pem", &(certified.key_pem() + &certified.pem()));
    write(&old);
    let both = folder.path("both.pem");
    let identity = TlsIdentity::from_pem_files(&both, &both).unwrap();
    let _watch = identity.watch().unwrap();
    write(&new);
    eventually("it is renewed", || identity.not_after() == self::identity(&new).not_after());
    write(&old);
    eventually("and once more", || identity.not_after() == self::identity(&old).not_after());
    assert_eq!(logged(&folder, Level::Error, ""), [""; 0]);
}

/// A program that goes into another folder finds its files nonetheless.
#[test]
fn relative_paths_are_those_of_the_start() {
    let folder = begin();
    let (old, new) = (certified("old"), certified("new"));
    write(&folder, &old);
    let here = std::env::current_dir().unwrap();
    let up: std::path::PathBuf = here.components().skip(1).map(|_| "..").collect();
    let relative = up.join(folder.strip_prefix("/").unwrap());
    assert!(relative.is_relative());
    let identity = load(&relative);
    write(&folder, &new);
    assert!(identity.reload().unwrap());
    assert!(!logged(&folder, Level::Info, "../").is_empty(), "the log has them as they were given");
}

/// What is said of a certificate when a server is bound.
fn warned(certified: &Certified) -> Vec<String> {
    let folder = begin();
    write(&folder, certified);
    let identity = load(&folder);
    let both =
        Server::builder().listen_tls("127.0.0.1:0", identity.clone()).listen_tls("127.0.0.1:0", identity);
    drop(both.bind().unwrap());
    logged(&folder, Level::Warn, "")
}

#[test]
fn the_end_of_a_certificate_is_told_thirty_days_before() {
    assert_eq!(warned(&valid("later", (-DAY, 31 * DAY))), [""; 0]);
    for (left, words) in
        [(29 * DAY, "28 days"), (5 * DAY, "4 days"), (30 * 3600, "29 hours"), (90, "0 hours")]
    {
        let lines = warned(&valid("soon", (-DAY, left)));
        let [line] = &lines[..] else { panic!("{lines:#?}") };
        assert!(
            line.contains(&format!("cert.pem: the certificate \"CN=soon\" expires in {words}: it")),
            "{line}"
        );
        assert!(line.ends_with("Z; renew it"), "{line}");
    }
    // Once only, although it is said when it is loaded as well.
    let lines = warned(&valid("over", (-9 * DAY, -DAY)));
    assert!(matches!(&lines[..], [line] if line.contains("\"CN=over\" has expired")), "{lines:#?}");
}

/// One of an issuer that ends earlier ends the chain.
#[test]
fn the_first_one_of_a_chain_to_end_is_told() {
    let folder = begin();
    let root = Kind { valid: (-DAY, 900 * DAY), ..Kind::ca("root") }.signed();
    let lower = Kind { valid: (-DAY, 7 * DAY), ..Kind::ca("lower") }.issued_by(&root);
    let server = Kind { valid: (-DAY, 90 * DAY), ..Kind::server("server") }.issued_by(&lower);
    let chain = folder.write("chain.pem", authority::pem(&[&server, &lower, &root]));
    let identity = TlsIdentity::from_pem_files(chain, folder.write("key", server.key_pem())).unwrap();
    let server = Server::builder().listen_tls("127.0.0.1:0", identity.clone()).bind().unwrap();
    let lines = logged(&folder, Level::Warn, "");
    assert!(matches!(&lines[..], [line] if line.contains("\"CN=lower\" expires in 6 days")), "{lines:#?}");
    let certificates = server.hub().certificates().unwrap();
    let [own] = &certificates[..] else { panic!("{certificates:#?}") };
    assert_eq!((&*own.subject, own.not_after), ("CN=server", identity.not_after()));
}

#[test]
fn the_hub_tells_the_certificates_as_they_are_now() {
    begin();
    let identities = [identity(&certified("one")), identity(&certified("other"))];
    let [one, other] = identities.each_ref();
    let builder = Server::builder().listen("127.0.0.1:0");
    let builder = [one, other, one].into_iter().fold(builder, |b, i| b.listen_tls("127.0.0.1:0", i.clone()));
    let server = builder.bind().unwrap();
    let hub = server.hub();
    let subjects = || -> Vec<String> {
        hub.certificates().unwrap().into_iter().map(|certificate| certificate.subject).collect()
    };
    assert_eq!(subjects(), ["CN=one", "CN=other"]);
    other.replace(&identity(&certified("new"))).unwrap();
    assert_eq!(subjects(), ["CN=one", "CN=new"]);
    let certificate = &hub.certificates().unwrap()[1];
    assert_eq!(certificate.name, "the certificates");
    assert_eq!(certificate.not_after, other.not_after());
    assert!(certificate.not_before < SystemTime::now());
    let plain = Server::builder().listen("127.0.0.1:0").bind().unwrap();
    assert_eq!(plain.hub().certificates().unwrap(), []);
}

/// Wherever it comes from, and whatever issued it. Nobody is accepted there.
#[test]
fn the_bundled_certificate_is_warned_of_where_others_may_come() {
    let folder = begin();
    let bundled: Vec<_> = ["server.pem", "server.key"]
        .map(|name| folder.write(name, fs::read(format!("certs/{name}")).unwrap()))
        .into();
    #[cfg(feature = "tls")]
    let archive = folder.write("server.p12", fs::read("certs/server.p12").unwrap());
    let key = openssl::pkey::PKey::private_key_from_pem(&fs::read("certs/server.key").unwrap()).unwrap();
    let again = Kind { key, valid: (-DAY, 90 * DAY), ..Kind::server("box") }.signed();
    let again = folder.write("again.pem", again.pem());
    let own = certified("own");
    write(&folder, &own);
    let told = |name: &str| logged(&folder, Level::Warn, &format!("{name}: this is the test certificate"));
    for (name, identity, told_of) in [
        ("server.pem", TlsIdentity::from_pem_files(&bundled[0], &bundled[1]).unwrap(), 1),
        #[cfg(feature = "tls")]
        ("server.p12", TlsIdentity::from_pkcs12_file(&archive, "switchboard").unwrap(), 1),
        ("again.pem", TlsIdentity::from_pem_files(&again, &bundled[1]).unwrap(), 1),
        ("cert.pem", load(&folder), 0),
    ] {
        let unix = format!("unix:{}", folder.path("socket"));
        for local in ["127.0.0.1:0", "[::1]:0", "localhost:0", &unix] {
            drop(Server::builder().listen_tls(local, identity.clone()).bind());
            assert_eq!(told(name), [""; 0], "{local}");
        }
        let builder = Server::builder().listen_tls("127.0.0.1:0", identity.clone());
        drop(builder.listen_tls("0.0.0.0:0", identity.clone()).listen_tls("0.0.0.0:0", identity).bind());
        assert_eq!(told(name).len(), told_of, "{name}");
        assert!(told(name).iter().all(|line| line.contains("on 0.0.0.0:") && line.contains("key is public")));
    }
}

/// The certificates for other names are renewed with the first one, and so is what uses them.
#[cfg(feature = "rustls")]
#[test]
fn the_certificates_for_other_names_are_renewed_too() {
    let folder = begin();
    let of = |subject, name| Kind { name, valid: (-DAY, 90 * DAY), ..Kind::server(subject) }.signed();
    let (own, other) = (folder.join("own"), folder.join("other"));
    write(&own, &of("own", "own.example"));
    write(&other, &of("other", "other.example"));
    let identity = load(&own).with_backend(TlsBackend::Rustls).with_other(load(&other));
    let _watch = identity.watch().unwrap();
    let builder = Server::builder().listen_tls("127.0.0.1:0", identity.clone());
    let server = Running::new(builder.route("/", || app(echo)));
    let address = server.addresses[0].tcp().unwrap();
    let is_served = |name: &str, certified: &Certified| {
        let stream = handshake_for(name, address);
        stream.peer_certificate().unwrap().unwrap().to_der().unwrap()
            == certified.certificate.to_der().unwrap()
    };
    let (new_own, new_other) = (of("new own", "own.example"), of("new other", "other.example"));
    write(&other, &new_other);
    eventually("the other one is renewed", || is_served("other.example", &new_other));
    assert!(!is_served("own.example", &new_other));
    write(&own, &new_own);
    eventually("the first one is renewed", || is_served("own.example", &new_own));
    assert!(is_served("unknown.example", &new_own) && is_served("other.example", &new_other));
    let newest = of("newest", "other.example");
    write(&other, &newest);
    fs::write(own.join("key.pem"), newest.key_pem()).unwrap();
    eventually("one does not wait for the other", || is_served("other.example", &newest));
    assert!(identity.reload().unwrap_err().to_string().contains("does not match"));
    assert!(is_served("own.example", &new_own));
}
