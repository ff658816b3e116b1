#![cfg(all(feature = "cluster", feature = "__tls", not(target_vendor = "apple")))]
//! The ways to a Redis, and what is said of one that will not do.

mod common;

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE,
    authority::{Kind, pem},
    eventually,
    redis::{Delaying, RedisServer},
};
use switchboard::{Redis, RedisStore, SessionId, SessionStore};

fn redis(url: impl AsRef<str>) -> Redis {
    Redis::new(url).unwrap()
}

fn id() -> SessionId {
    SessionId::new("an-id-of-the-test").unwrap()
}

/// Stores a value, and gets it.
#[track_caller]
fn assert_works(redis: Redis) {
    let store = RedisStore::new(redis);
    store.set(&id(), "k", "v").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(store.get(&id(), "k").unwrap().as_deref(), Some("v"));
}

/// The error names this, and shows no password.
#[track_caller]
fn assert_fails(redis: Redis, parts: &[&str]) {
    let error = RedisStore::new(redis).get(&id(), "k").unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    assert!(!error.contains("secret"), "{error}");
}

/// The options of a server with TLS.
fn tls_options<'a>(clients: &'a str, paths: &'a [String; 3]) -> Vec<&'a str> {
    let [certificate, key, ca] = paths;
    vec![
        "--tls-cert-file",
        certificate,
        "--tls-key-file",
        key,
        "--tls-ca-cert-file",
        ca,
        "--tls-auth-clients",
        clients,
    ]
}

fn absolute(path: &str) -> String {
    Path::new(path).canonicalize().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn by_tcp_and_by_a_unix_socket() {
    let server = RedisServer::start();
    assert_works(redis(server.url()));
    assert_works(redis(format!("redis://127.0.0.1:{}", server.port())));
    assert_works(redis(format!("valkey://127.0.0.1:{}/3", server.port())));
    assert_works(redis(format!("unix:{}", server.socket())));
    assert_works(redis(format!("redis+unix://{}?db=1", server.socket())));
    for database in ["0", "1", "3"] {
        let key = server.command(&[
            "EVAL",
            "redis.call('SELECT', ARGV[1]); return redis.call('KEYS', '*')",
            "0",
            database,
        ]);
        assert_eq!(key, "switchboard:session:an-id-of-the-test", "database {database}");
    }
    let store = RedisStore::new(redis(server.url()));
    store.touch(&id()).unwrap();
    assert!(server.command(&["CLIENT", "LIST"]).contains("name=switchboard "), "it says who it is");
}

#[test]
fn with_a_password() {
    let server = RedisServer::start_with(&["--requirepass", "se:cr/et secret"]);
    let at = |credentials: &str| redis(format!("redis://{credentials}127.0.0.1:{}", server.port()));
    assert_works(at(":se:cr%2Fet%20secret@"));
    assert_works(at("default:se:cr%2Fet%20secret@"));
    assert_works(at("").password("se:cr/et secret"));
    assert_works(redis(format!("unix:{}?pass=se:cr/et+secret", server.socket()).replace(' ', "+")));
    assert_fails(at(""), &["127.0.0.1:", "NOAUTH", "redis://:PASSWORD@HOST"]);
    assert_fails(at(":secret@"), &["127.0.0.1:", "WRONGPASS", "the user or the password is wrong"]);
    assert_fails(at("").user("me"), &["password is missing"]);
}

#[test]
fn as_a_user_of_an_acl() {
    let server = RedisServer::start();
    // As the documentation has it.
    let rights =
        "~switchboard:session:* +pexpire +hexists +hget +hset +hdel +hgetall +exists +del +rename +eval";
    let mut command = vec!["ACL", "SETUSER", "sessions", "on", ">secret"];
    command.extend(rights.split(' '));
    server.command(&command);
    let redis = redis(format!("redis://sessions:secret@127.0.0.1:{}", server.port()));
    assert_works(redis.clone());
    let store = RedisStore::new(redis.clone());
    let other = SessionId::new("another").unwrap();
    store.renew(&id(), other.clone()).unwrap();
    assert!(store.open(&other).unwrap());
    store.remove(&other, "x").unwrap();
    store.end(&other).unwrap();
    store.keep(&[id(), other]).unwrap();
    let error = RedisStore::new(redis).prefix("theirs:").touch(&id()).unwrap_err().to_string();
    assert!(error.contains("NOPERM") && error.contains("ACL"), "{error}");
}

#[test]
fn by_tls() {
    let paths = ["certs/server.pem", "certs/server.key", "certs/ca.pem"].map(absolute);
    let server = RedisServer::start_with(&tls_options("no", &paths));
    for host in ["localhost", "127.0.0.1"] {
        let redis = redis(format!("rediss://{host}:{}", server.port()));
        assert_works(redis.clone().tls_ca_file("certs/ca.pem").unwrap());
        assert_works(redis.clone().tls_ca(&std::fs::read("certs/ca.pem").unwrap()).unwrap());
        assert_fails(redis, &["ertificate", "Redis::tls_ca_file (--cluster-ca FILE)"]);
    }
    let other = Kind::ca("Another CA").signed();
    let redis = redis(server.url()).tls_ca(pem(&[&other]).as_bytes()).unwrap();
    assert_fails(redis, &["ertificate", "(--cluster-ca FILE)"]);
    let plain = self::redis(format!("redis://localhost:{}", server.port()));
    assert_fails(plain, &["localhost:", "may want TLS: then write rediss://"]);
    let without = RedisServer::start();
    let secure = self::redis(format!("rediss://localhost:{}", without.port()));
    assert_fails(secure, &["localhost:", "may be without TLS: then write redis://"]);
}

#[test]
fn by_tls_with_a_certificate_of_our_own() {
    let ca = Kind::ca("Our CA").signed();
    let ours = Kind::server("Ours").issued_by(&ca);
    let folder = common::folder::Folder::new();
    let ca_file = folder.write("ca.pem", pem(&[&ca]));
    let paths = [absolute("certs/server.pem"), absolute("certs/server.key"), ca_file];
    let server = RedisServer::start_with(&tls_options("yes", &paths));
    let redis = redis(server.url()).tls_ca_file("certs/ca.pem").unwrap();
    let key = ours.key.private_key_to_pem_pkcs8().unwrap();
    assert_works(redis.clone().tls_certificate(pem(&[&ours]).as_bytes(), &key).unwrap());
    assert_fails(redis, &["localhost:", "Redis::tls_certificate (--cluster-cert FILE"]);
}

#[test]
fn what_is_wrong_with_certificates_is_told_when_they_are_given() {
    let redis = redis("rediss://localhost");
    let error = redis.clone().tls_ca_file("/no/such/file").unwrap_err().to_string();
    assert!(error.contains("/no/such/file"), "{error}");
    let error = redis.clone().tls_ca_file("certs/server.key").unwrap_err().to_string();
    assert!(error.contains("certs/server.key: there is no certificate in it"), "{error}");
    let error = redis.tls_certificate(b"x", b"secret").unwrap_err().to_string();
    assert!(error.contains("the certificate for Redis, or its key") && !error.contains("secret"), "{error}");
}

#[test]
fn certificates_without_tls_are_refused() {
    for (url, part) in [
        ("redis://localhost", "write rediss://"),
        ("redis+sentinel://localhost/m", "write rediss+sentinel://"),
        ("unix:/run/redis.sock", "a Unix socket has no TLS"),
    ] {
        let refused = [
            redis(url).tls_ca(&std::fs::read("certs/ca.pem").unwrap()),
            redis(url).tls_ca_file("certs/ca.pem"),
            redis(url).tls_certificate(
                &std::fs::read("certs/server.pem").unwrap(),
                &std::fs::read("certs/server.key").unwrap(),
            ),
        ];
        for refused in refused {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}

#[test]
fn sentinels_with_a_password_of_their_own() {
    let master = RedisServer::start();
    let sentinel = RedisServer::start_sentinel(&master);
    sentinel.command(&["ACL", "SETUSER", "seer", "on", ">secret", "+@all"]);
    sentinel.command(&["ACL", "SETUSER", "default", "off"]);
    let by = || redis(format!("redis+sentinel://127.0.0.1:{}/mymaster", sentinel.port()));
    assert_works(by().sentinel_password(Some("seer"), "secret"));
    let parts =
        ["Sentinel 127.0.0.1:", "NOAUTH", "Redis::sentinel_password (--cluster-sentinel-password-file)"];
    assert_fails(by(), &parts);
    assert_fails(by().sentinel_password(None, "secret"), &["Sentinel 127.0.0.1:", "WRONGPASS"]);
}

#[test]
fn what_will_not_do_is_named() {
    assert_fails(redis("redis://127.0.0.1:1"), &["127.0.0.1:1", "refused"]);
    assert_fails(redis("redis://no-such-host.invalid"), &["no-such-host.invalid:6379"]);
    assert_fails(redis("unix:/no/such/socket"), &["/no/such/socket"]);
    let cluster = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    assert_fails(redis(cluster.url()), &["Redis Cluster", "not supported"]);
    let server = RedisServer::start();
    assert_fails(redis(format!("{}/99", server.url())), &["database 99", "DB index is out of range"]);
    let replica = RedisServer::start_with(&["--replicaof", &format!("127.0.0.1 {}", server.port())]);
    assert_fails(redis(replica.url()), &["replica"]);
    let sentinel = RedisServer::start_sentinel(&server);
    assert_fails(redis(sentinel.url()), &["it is a Sentinel", "redis+sentinel://HOST/MASTER"]);
    let by = |server: &RedisServer, name: &str| {
        redis(format!("redis+sentinel://127.0.0.1:{}/{name}", server.port()))
    };
    assert_fails(by(&sentinel, "other"), &["no master of the name other"]);
    assert_fails(by(&server, "mymaster"), &["it is no Sentinel"]);
    assert_fails(
        redis("redis+sentinel://127.0.0.1:1,localhost:1/m"),
        &["127.0.0.1:1", "localhost:1", "master m"],
    );
}

#[test]
fn what_is_no_redis_is_named() {
    for answer in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "220 mail ESMTP\r\n",
        "+OK\r\n+OK\r\n+OK\r\n",
        ":1\r\n:1\r\n:1\r\n",
        "$-1\r\n*-1\r\n*-1\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let stranger = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.read(&mut [0; 1000]);
        });
        assert_fails(redis(url), &["is no Redis"]);
        stranger.join().unwrap();
    }
}

/// Whoever takes connections and says nothing holds nobody for longer than the time limit, and no thread for good.
#[test]
fn who_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let folder = common::folder::Folder::new();
    let socket = folder.path("silent.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let begun = Instant::now();
    thread::scope(|scope| {
        for url in [
            format!("redis://{address}"),
            format!("rediss://{address}"),
            format!("unix:{socket}"),
            format!("redis+sentinel://{address}/m"),
        ] {
            scope.spawn(|| assert_fails(redis(url), &["in time"]));
        }
    });
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    let mut waiting = Vec::new();
    listener.set_nonblocking(true).unwrap();
    while let Ok((stream, _)) = listener.accept() {
        waiting.push(stream);
    }
    drop(waiting);
    eventually("no thread is left", || threads("switchboard-red") == 0);
}

/// Of this name, cut to the 15 bytes that the system keeps.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let comm = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(comm).filter(|comm| comm.trim() == name).count()
}

#[test]
fn an_answer_that_is_late_is_not_taken_for_another_one() {
    let server = RedisServer::start();
    let way = Delaying::to(server.port());
    let store = RedisStore::new(redis(format!("redis://127.0.0.1:{}", way.port())))
        .connections(1)
        .answer_timeout(Duration::from_millis(2500));
    for (key, value) in [("a", "1"), ("b", "2")] {
        store.set(&id(), key, value).unwrap();
    }
    way.set_delay(Duration::from_secs(3));
    assert!(store.get(&id(), "a").unwrap_err().to_string().contains("in time"));
    way.set_delay(Duration::ZERO);
    eventually("it is reached again", || store.get(&id(), "b").is_ok());
    for _ in 0..20 {
        assert_eq!(store.get(&id(), "b").unwrap().as_deref(), Some("2"));
        assert_eq!(store.get(&id(), "a").unwrap().as_deref(), Some("1"));
    }
}

#[test]
fn sentinels_lead_to_the_master_also_after_a_failover() {
    let mut master = RedisServer::start();
    let of_master = format!("127.0.0.1 {}", master.port());
    let replica = RedisServer::start_with(&["--replicaof", &of_master]);
    eventually("the replica has a link", || {
        replica.command(&["INFO", "replication"]).contains("master_link_status:up")
    });
    let sentinel = RedisServer::start_sentinel(&master);
    eventually("the Sentinel knows the replica", || {
        sentinel.command(&["SENTINEL", "REPLICAS", "mymaster"]).contains(&replica.port().to_string())
    });
    // A Sentinel ends the connections to the one that it changes.
    let is = |server: &RedisServer, role: &str| {
        server.try_command(&["ROLE"]).is_ok_and(|answer| answer.starts_with(role))
    };
    // The first one is not there: the next one is asked.
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/mymaster", sentinel.port());
    let store = RedisStore::new(redis(&url));
    store.set(&id(), "k", "v").unwrap();
    eventually("it is copied", || replica.command(&["DBSIZE"]) == "1");
    master.kill();
    assert!(store.get(&id(), "k").is_err() || is(&replica, "master"));
    eventually("the replica is the master", || is(&replica, "master"));
    eventually("it is found", || store.get(&id(), "k").is_ok_and(|value| value.as_deref() == Some("v")));
    store.set(&id(), "k", "later").unwrap();
    // The old one comes back, and becomes a replica: whoever was told its address must not take it.
    master.restart();
    // A Sentinel looks every ten seconds, and takes ten more to be sure.
    let begun = Instant::now();
    while !is(&master, "slave") {
        assert!(begun.elapsed() < 3 * PATIENCE, "the old one is never a replica");
        thread::sleep(Duration::from_millis(20));
    }
    let found = RedisStore::new(redis(&url));
    assert_eq!(found.get(&id(), "k").unwrap().as_deref(), Some("later"));
}
