#![cfg(all(feature = "__tls", not(target_vendor = "apple")))]
//! Certificates and keys as they are found in files, and their mistakes, each called by name when they are loaded.

mod common;

use std::{
    net::TcpStream,
    sync::{Mutex, Once},
    time::{Duration, SystemTime},
};

use common::{
    app,
    authority::{self, Certified, DAY, Kind, chain, ec_key, stack},
    backends, echo,
    folder::Folder,
    running::Running,
};
use openssl::{
    ec::{EcGroup, EcKey},
    nid::Nid,
    pkcs12::Pkcs12,
    pkey::{PKey, Private},
    rsa::Rsa,
    ssl::{SslConnector, SslMethod, SslVerifyMode},
    symm::Cipher,
    x509::{X509NameBuilder, X509Req},
};
use switchboard::{Server, ServerError, TlsBackend, TlsError, TlsIdentity};

fn load(folder: &Folder, name: &str, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Loaded {
    let name = format!("{name}.pem");
    let file = folder.write(&name, chain);
    let result = TlsIdentity::from_pem_files(&file, folder.write("server.key", key));
    Loaded { warnings: warnings(&file), result }
}

#[cfg(feature = "tls")]
fn load_archive(folder: &Folder, name: &str, archive: &[u8], password: &str) -> Loaded {
    let file = folder.write(name, archive);
    let result = TlsIdentity::from_pkcs12_file(&file, password);
    Loaded { warnings: warnings(&file), result }
}

/// What came of an attempt.
#[derive(Debug)]
struct Loaded {
    result: Result<TlsIdentity, TlsError>,
    warnings: Vec<String>,
}

impl Loaded {
    #[track_caller]
    fn ok(self) -> TlsIdentity {
        assert_eq!(self.warnings, [""; 0]);
        self.result.unwrap()
    }

    /// It works; there is one warning, with these words.
    #[track_caller]
    fn warns(self, words: &[&str]) {
        self.result.unwrap();
        let [warning] = &self.warnings[..] else { panic!("{:#?}", self.warnings) };
        assert_words(warning, words);
    }

    #[track_caller]
    fn fails(self, words: &[&str]) {
        assert_words(&self.result.unwrap_err().to_string(), words);
    }
}

#[track_caller]
fn assert_words(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains('\n'), "one line: {text}");
}

/// The warnings that begin with the name of a file.
fn warnings(file: &str) -> Vec<String> {
    let logged = LOG.0.lock().unwrap();
    logged.iter().filter(|line| line.starts_with(file)).cloned().collect()
}

struct Log(Mutex<Vec<String>>);

static LOG: Log = Log(Mutex::new(Vec::new()));

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() == log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// A folder; and from now on warnings are kept.
fn begin() -> Folder {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&LOG).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
    Folder::new()
}

fn text(pem: Vec<u8>) -> String {
    String::from_utf8(pem).unwrap()
}

/// The names of the certificates that a client gets, whichever library does TLS.
fn sent(identity: TlsIdentity) -> Vec<String> {
    let all = backends().map(|backend| sent_by(identity.clone().with_backend(backend)));
    let all = all.collect::<Vec<_>>();
    assert!(all.iter().all(|names| names == &all[0]), "{all:?}");
    all[0].clone()
}

fn sent_by(identity: TlsIdentity) -> Vec<String> {
    let server = Running::new(Server::builder().listen_tls("127.0.0.1:0", identity).route("/", || app(echo)));
    let mut connector = SslConnector::builder(SslMethod::tls()).unwrap();
    connector.set_verify(SslVerifyMode::NONE);
    let tcp = TcpStream::connect(server.addresses[0].tcp().unwrap()).unwrap();
    tcp.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let tls = connector.build().connect("localhost", tcp).unwrap();
    let chain = tls.ssl().peer_cert_chain().unwrap().iter();
    let name = |certificate: &openssl::x509::X509Ref| {
        let name = certificate.subject_name().entries().next().unwrap();
        name.data().to_string().unwrap()
    };
    chain.map(name).collect()
}

#[test]
fn a_key_is_read_in_each_form() {
    let folder = begin();
    let rsa = Rsa::generate(2048).unwrap();
    let ec = ec_key();
    let sec1 = text(ec.ec_key().unwrap().private_key_to_pem().unwrap());
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let rsa_key = PKey::from_rsa(rsa.clone()).unwrap();
    let ed25519 = PKey::generate_ed25519().unwrap();
    let p384 = EcKey::generate(&EcGroup::from_curve_name(Nid::SECP384R1).unwrap()).unwrap();
    let p384 = PKey::from_ec_key(p384).unwrap();
    let other_keys = [PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(), ec_key()];
    let others = other_keys.map(|key| Kind { key, ..Kind::server("other") }.signed());
    let pkcs8 = |key: &PKey<Private>| text(key.private_key_to_pem_pkcs8().unwrap());
    for (key, pem) in [
        (&ec, pkcs8(&ec)),
        (&ec, sec1.clone()),
        (&ec, format!("{parameters}{sec1}")),
        (&rsa_key, pkcs8(&rsa_key)),
        (&rsa_key, text(rsa.private_key_to_pem().unwrap())),
        (&ed25519, pkcs8(&ed25519)),
        (&p384, pkcs8(&p384)),
        (&p384, text(p384.ec_key().unwrap().private_key_to_pem().unwrap())),
    ] {
        let issuer = Kind::ca("issuer").signed();
        let server = Kind { key: key.clone(), ..Kind::server("server") }.issued_by(&issuer);
        let chain = authority::pem(&[&server, &issuer]);
        let names = sent(load(&folder, "chain", &chain, &pem).ok());
        assert_eq!(names, ["server", "issuer"], "{}", &pem[..30]);
        // One that belongs to another certificate is not taken, whatever form it has.
        for other in &others {
            load(&folder, "other", other.pem(), &pem).fails(&[
                "other.pem with",
                "server.key: the key does not match the certificate \"CN=other\"",
            ]);
        }
    }
}

#[test]
fn a_key_that_the_library_does_not_know_is_an_error_of_bind() {
    let folder = begin();
    let curve = |nid| EcKey::generate(&EcGroup::from_curve_name(nid).unwrap()).unwrap();
    let keys = [
        PKey::from_ec_key(curve(Nid::SECP521R1)).unwrap(),
        PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap(),
    ];
    for key in keys {
        let server = Kind { key, ..Kind::server("odd") }.signed();
        let (chain, key) = (folder.write("odd.pem", server.pem()), folder.write("odd.key", server.key_pem()));
        // OpenSSL takes the first, and whether it takes the other is for the system to say.
        let Ok(identity) = TlsIdentity::from_pem_files(&chain, &key) else { continue };
        if !TlsBackend::Rustls.is_available() {
            continue;
        }
        let identity = identity.with_backend(TlsBackend::Rustls);
        let error = Server::builder().listen_tls("127.0.0.1:0", identity).bind().unwrap_err();
        assert!(matches!(error, ServerError::Tls(_)), "{error:?}");
        assert_words(
            &error.to_string(),
            &["odd.pem with", "odd.key", "CN=odd", "version 3", "RSA of 2048 bits", "P-256"],
        );
    }
}

/// All ways in which a file may wrap what is in it.
fn wrapped(pem: &str) -> Vec<Vec<u8>> {
    let utf16: Vec<u8> = format!("\u{feff}{pem}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        format!("Bag Attributes\n    friendlyName: server\nKey Attributes: <No Attributes>\n{pem}").into(),
        format!("\u{feff}{pem}").into(),
        pem.replace('\n', "\r\n").into(),
        format!("\u{feff}# a comment: it's the key\r\n{}", pem.replace('\n', "\r\n")).into(),
        format!("{pem}\n\ntext behind it").into(),
        pem.trim_end().into(),
        pem.replace('\n', "  \n  ").into(),
        [b"caf\xe9\n", pem.as_bytes()].concat(),
        utf16,
    ]
}

#[test]
fn a_file_is_read_however_it_is_wrapped() {
    let folder = begin();
    let [server, lower, upper, root] = chain();
    let certificates = authority::pem(&[&server, &lower, &upper, &root]);
    let key = server.key_pem();
    for (file, other) in [(&key, &certificates), (&certificates, &key)] {
        for file in wrapped(file) {
            let (chain, key) =
                if other == &key { (&*file, key.as_bytes()) } else { (certificates.as_bytes(), &*file) };
            load(&folder, "chain", chain, key).ok(); // it would warn of what it has not seen
        }
    }
    for both in [format!("{key}{certificates}"), format!("{certificates}{key}")] {
        for both in wrapped(&both).into_iter().chain([both.into_bytes()]) {
            load(&folder, "both", &both, &both).ok();
        }
    }
}

#[test]
fn a_wrong_order_is_an_error_that_says_the_right_one() {
    let folder = begin();
    let [server, lower, upper, root] = chain();
    let key = server.key_pem();
    let right = [&server, &lower, &upper, &root];
    for len in 3..=4 {
        load(&folder, "right", authority::pem(&right[..len]), &key).result.unwrap();
    }
    for wrong in [
        vec![&lower, &server],
        vec![&root, &upper, &lower, &server],
        vec![&server, &upper, &lower],
        vec![&server, &root, &upper, &lower],
        vec![&server, &lower, &root, &upper],
        vec![&root, &server, &lower, &upper],
    ] {
        let names: Vec<String> = right
            .iter()
            .filter(|c| wrong.iter().any(|w| w.certificate == c.certificate))
            .map(|c| format!("{:?}", c.certificate.subject_name()))
            .map(|name| name.split('"').nth(1).map(|name| format!("\"CN={name}\"")).unwrap())
            .collect();
        load(&folder, "wrong", authority::pem(&wrong), &key).fails(&[
            "wrong.pem: ",
            "wrong order",
            &names.join(", "),
        ]);
    }
    // A key that does not tell which certificate is its own.
    let ed25519 = Kind { key: PKey::generate_ed25519().unwrap(), ..Kind::server("server") }.issued_by(&root);
    load(&folder, "wrong", authority::pem(&[&root, &ed25519]), ed25519.key_pem())
        .fails(&["wrong order", "\"CN=server\", \"CN=root\""]);
}

#[test]
fn certificates_that_are_not_needed_are_called_by_name() {
    let folder = begin();
    let [server, lower, upper, root] = chain();
    let stray = Kind::ca("stray").signed();
    let key = server.key_pem();
    let file = authority::pem(&[&server, &server, &lower, &upper, &root]);
    load(&folder, "twice", file, &key).warns(&["twice.pem: ", "\"CN=server\" is there twice"]);
    let file = authority::pem(&[&server, &lower, &stray, &upper, &root]);
    load(&folder, "stray", file, &key)
        .warns(&["stray.pem: ", "\"CN=stray\" is not among the issuers of \"CN=server\""]);
    let child = Kind::server("child").issued_by(&stray);
    let loaded =
        load(&folder, "strays", authority::pem(&[&server, &stray, &child, &lower, &upper, &root]), &key);
    loaded.warns_of(&["\"CN=stray\" is not among", "\"CN=child\" is not among"]);
    // Two certificates of one CA, for clients that know either root.
    let other_root = Kind::ca("other root").signed();
    let cross = Kind { key: lower.key.clone(), ..Kind::ca("lower") }.issued_by(&other_root);
    let file = authority::pem(&[&server, &lower, &cross, &upper, &root, &other_root]);
    load(&folder, "cross", file, &key).ok();
    let many: Vec<Certified> = (0..200).map(|_| stray.clone()).collect();
    let many: Vec<&Certified> = [&server].into_iter().chain(&many).collect();
    load(&folder, "many", authority::pem(&many), &key).fails(&[
        "many.pem: ",
        "201 certificates",
        "more than clients take",
    ]);
}

#[test]
fn a_certificate_out_of_its_time_is_a_warning() {
    let folder = begin();
    let root = Kind::ca("root").signed();
    let of = |subject, valid| Kind { valid, ..Kind::server(subject) }.issued_by(&root);
    let expired = of("old", (-3 * DAY, -DAY));
    let file = authority::pem(&[&expired, &root]);
    let loaded = load(&folder, "expired", &file, expired.key_pem());
    let sent_names = sent(loaded.result.as_ref().unwrap().clone());
    assert_eq!(sent_names, ["old", "root"]);
    loaded.warns(&["expired.pem: ", "\"CN=old\" has expired", "renew it", "T", "Z"]);

    let early = of("new", (DAY, 3 * DAY));
    load(&folder, "early", authority::pem(&[&early, &root]), early.key_pem()).warns(&[
        "early.pem: ",
        "\"CN=new\" is not yet valid",
        "this machine's clock says 20",
    ]);

    // Not only the server's own.
    let lower = Kind { valid: (-3 * DAY, -DAY), ..Kind::ca("lower") }.issued_by(&root);
    let server = Kind::server("server").issued_by(&lower);
    load(&folder, "lower", authority::pem(&[&server, &lower, &root]), server.key_pem())
        .warns(&["\"CN=lower\" has expired"]);

    #[cfg(feature = "tls")]
    {
        let archive = archive("x", Some(&expired.key), Some(&expired), &[&root]);
        load_archive(&folder, "expired.p12", &archive, "x")
            .warns(&["expired.p12: ", "\"CN=old\" has expired"]);
    }
}

#[test]
fn a_missing_issuer_is_a_warning_that_says_where_it_is() {
    let folder = begin();
    let [_, lower, upper, root] = chain();
    let url = "http://ca.example/lower.der";
    let server = Kind { issuer_url: Some(url), ..Kind::server("") }.issued_by(&lower);
    let key = server.key_pem();
    // It has no subject, as new ones of public CAs: it goes by its name.
    load(&folder, "own", server.pem(), &key).warns(&[
        "own.pem: ",
        "\"DNS:localhost\" is issued by \"CN=lower\"",
        "neither there nor",
        url,
    ]);
    load(&folder, "some", authority::pem(&[&server, &lower]), &key)
        .warns(&["\"CN=lower\" is issued by \"CN=upper\""]);
    load(&folder, "gap", authority::pem(&[&server, &lower, &root]), &key)
        .warns_of(&["\"CN=upper\"", "\"CN=root\" is not among the issuers"]);
    load(&folder, "root", authority::pem(&[&server, &lower, &upper]), &key)
        .warns(&["\"CN=root\"", "CA of your own"]);
    load(&folder, "whole", authority::pem(&[&server, &lower, &upper, &root]), &key).ok();
    let itself = Kind::server("itself").signed();
    load(&folder, "itself", itself.pem(), itself.key_pem()).ok();
}

impl Loaded {
    /// It works; each of these words is in one of the warnings.
    #[track_caller]
    fn warns_of(self, words: &[&str]) {
        self.result.unwrap();
        assert_words(&self.warnings.join(" "), words);
        assert_eq!(self.warnings.len(), words.len());
    }
}

#[test]
fn what_is_something_else_is_called_by_name() {
    let folder = begin();
    let server = Kind::server("server").signed();
    let (certificate, key) = (server.pem(), server.key_pem());
    let mut request = X509Req::builder().unwrap();
    request.set_subject_name(&X509NameBuilder::new().unwrap().build()).unwrap();
    request.set_pubkey(&server.key).unwrap();
    request.sign(&server.key, openssl::hash::MessageDigest::sha256()).unwrap();
    let request = request.build().to_pem().unwrap();
    let public = server.key.public_key_to_pem().unwrap();
    let archive = archive("x", Some(&server.key), Some(&server), &[]);
    let rsa = Rsa::generate(2048).unwrap();

    for (found, words) in [
        (&request[..], &["certificate request (CSR)"][..]),
        (&public, &["public key"]),
        (&server.certificate.to_der().unwrap(), &["certificate in DER", "openssl x509 -inform DER"]),
        (&server.key.private_key_to_pkcs8().unwrap(), &["key in DER", "openssl pkcs8"]),
        (&rsa.private_key_to_der().unwrap(), &["key in DER", "openssl pkcs8"]),
        (&server.key.ec_key().unwrap().private_key_to_der().unwrap(), &["key in DER", "openssl pkcs8"]),
        (&archive, &["PKCS#12", "--identity"]),
        (&server.key.public_key_to_der().unwrap(), &["DER, of another kind"]),
        (b"", &["empty"]),
        (b"\n \r\n", &["empty"]),
        (b"hello", &["nor any other PEM"]),
        (b"-----BEGIN CERTI", &["nor any other PEM"]),
        (b"-----BEGIN PKCS7-----\n-----END PKCS7-----", &["PKCS#7", "openssl pkcs7 -print_certs"]),
        (b"-----BEGIN TRUSTED CERTIFICATE-----\n-----END TRUSTED CERTIFICATE-----", &["openssl x509"]),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----", &["ssh-keygen"]),
        (b"-----BEGIN X509 CRL-----\n-----END X509 CRL-----", &["X509 CRL"]),
    ] {
        let of_chain = [&["found.pem: there is no PEM certificate"], words].concat();
        load(&folder, "found", found, &key).fails(&of_chain);
        let of_key = [&["server.key: there is no PEM key"], words].concat();
        load(&folder, "good", &certificate, found).fails(&of_key);
    }
    load(&folder, "found", &key, &key)
        .fails(&["found.pem: there is no PEM certificate", "only a private key"]);
    load(&folder, "good", &certificate, &certificate)
        .fails(&["server.key: there is no PEM key", "only certificates"]);
    for (file, words) in
        [(&*folder.path(""), "directory"), ("/dev/zero", "too long"), ("/none", "No such file")]
    {
        let results = [
            TlsIdentity::from_pem_files(file, folder.write("key", &key)),
            TlsIdentity::from_pem_files(folder.write("chain", &certificate), file),
            #[cfg(feature = "tls")]
            TlsIdentity::from_pkcs12_file(file, "x"),
        ];
        for result in results {
            assert_words(&result.unwrap_err().to_string(), &[file, words]);
        }
    }
}

#[test]
fn an_encrypted_key_says_how_to_decrypt_it() {
    let folder = begin();
    let rsa = Rsa::generate(2048).unwrap();
    let key = PKey::from_rsa(rsa.clone()).unwrap();
    let server = Kind { key: key.clone(), ..Kind::server("server") }.signed();
    let (cipher, password) = (Cipher::aes_256_cbc(), b"x");
    let pkcs8 = key.private_key_to_pem_pkcs8_passphrase(cipher, password).unwrap();
    load(&folder, "server", server.pem(), pkcs8).fails(&[
        "server.key: ",
        "encrypted",
        "openssl pkcs8 -in KEY -out",
    ]);
    for old in [
        rsa.private_key_to_pem_passphrase(cipher, password).unwrap(),
        ec_key().ec_key().unwrap().private_key_to_pem_passphrase(cipher, password).unwrap(),
    ] {
        load(&folder, "server", server.pem(), old).fails(&[
            "server.key: ",
            "encrypted",
            "openssl pkey -in KEY -out",
        ]);
    }
}

#[test]
fn what_is_cut_off_or_damaged_is_called_by_name() {
    let folder = begin();
    let rsa = Rsa::generate(2048).unwrap();
    let key = PKey::from_rsa(rsa.clone()).unwrap();
    let server = Kind { key: key.clone(), ..Kind::server("server") }.signed();
    let (certificate, pkcs8) = (server.pem(), server.key_pem());
    let pkcs1 = text(rsa.private_key_to_pem().unwrap());
    let sec1 = text(ec_key().ec_key().unwrap().private_key_to_pem().unwrap());
    for whole in [&pkcs8, &pkcs1, &sec1] {
        let first_line = whole.find('\n').unwrap();
        for len in [first_line, first_line + 1, whole.len() / 2, whole.len() - 30, whole.len() - 3] {
            let words = ["server.key: the key cannot be read: it is cut off", "copy the file again"];
            load(&folder, "server", &certificate, &whole[..len]).fails(&words);
            load(&folder, "server", &certificate, format!("{}\n{certificate}", &whole[..len])).fails(&words);
        }
        // Lines are missing from its middle, or at its end.
        let lines: Vec<&str> = whole.lines().collect();
        for gap in [lines.len() - 2, lines.len() / 2] {
            let fewer = [&lines[..gap], &lines[gap + 1..]].concat().join("\n");
            load(&folder, "server", &certificate, fewer)
                .fails(&["server.key: the key cannot be read: it is cut off"]);
        }
        let strange = whole.replacen('M', "!", 1);
        load(&folder, "server", &certificate, strange).fails(&["the key cannot be read: it is damaged"]);
        let label = &whole[11..whole.find("-----\n").unwrap()];
        let garbage = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        load(&folder, "server", &certificate, garbage).fails(&["the key cannot be read: it is damaged"]);
        let other_end = whole.replace(&format!("END {label}"), "END SOMETHING");
        load(&folder, "server", &certificate, other_end).fails(&["the key cannot be read: ", "another END"]);
    }
    let lines: Vec<&str> = certificate.lines().collect();
    let fewer = [&lines[..9], &lines[10..]].concat().join("\n");
    for half in [&certificate[..certificate.len() / 2], &certificate[..certificate.len() - 3], &*fewer] {
        load(&folder, "half", half, &pkcs8).fails(&["half.pem: certificate 1 cannot be read: it is cut off"]);
        load(&folder, "half", format!("{certificate}{half}"), &pkcs8)
            .fails(&["half.pem: certificate 2 cannot be read"]);
    }
    // In the key's file only the key matters, and the other way round.
    let half = &certificate[..certificate.len() / 2];
    load(&folder, "good", &certificate, format!("{half}\n{pkcs8}")).ok();
    load(&folder, "good", format!("{}\n{certificate}", &pkcs8[..300]), &pkcs8).ok();
}

fn archive(
    password: &str,
    key: Option<&PKey<Private>>,
    own: Option<&Certified>,
    others: &[&Certified],
) -> Vec<u8> {
    let mut builder = Pkcs12::builder();
    builder.name("server").ca(stack(others));
    if let Some(key) = key {
        builder.pkey(key);
    }
    if let Some(own) = own {
        builder.cert(&own.certificate);
    }
    builder.build2(password).unwrap().to_der().unwrap()
}

#[cfg(feature = "tls")]
#[test]
fn the_chain_of_an_archive_is_sent_in_order() {
    let folder = begin();
    let [server, lower, upper, root] = chain();
    for others in [
        vec![&lower, &upper, &root],
        vec![&root, &upper, &lower],
        vec![&upper, &lower, &root],
        vec![&upper, &root, &lower],
    ] {
        let archive = archive("x", Some(&server.key), Some(&server), &others);
        let names = sent(load_archive(&folder, "chain.p12", &archive, "x").ok());
        assert_eq!(names, ["server", "lower", "upper", "root"]);
    }
}

#[cfg(feature = "tls")]
#[test]
fn mistakes_of_an_archive_are_called_by_name() {
    let folder = begin();
    let server = Kind::server("server").signed();
    let whole = archive("x", Some(&server.key), Some(&server), &[]);
    load_archive(&folder, "good.p12", &whole, "x").ok();
    for password in ["", "wrong", "x ", "\u{e9}"] {
        load_archive(&folder, "a.p12", &whole, password).fails(&["a.p12: ", "password", "wrong"]);
    }
    load_archive(&folder, "a.p12", &whole, "x\0").fails(&["a.p12: the password", "NUL"]);
    let without_key = archive("x", None, None, &[&server]);
    load_archive(&folder, "a.p12", &without_key, "x").fails(&["a.p12: there is no key in the PKCS#12"]);
    let without_certificate = archive("x", Some(&server.key), None, &[]);
    load_archive(&folder, "a.p12", &without_certificate, "x")
        .fails(&["a.p12: there is no certificate in the PKCS#12"]);
    let other = archive("x", Some(&ec_key()), None, &[&server]);
    load_archive(&folder, "a.p12", &other, "x").fails(&["a.p12: the key in the PKCS#12", "does not match"]);
    for (bytes, words) in [
        (&b""[..], "empty"),
        (server.pem().as_bytes(), "it is PEM"),
        (&whole[..whole.len() / 2], "cut off"),
        (b"hello", "something else"),
    ] {
        load_archive(&folder, "a.p12", bytes, "x").fails(&["a.p12: no PKCS#12 archive", words]);
    }
}

#[test]
fn an_identity_says_until_when_it_is_valid() {
    let folder = begin();
    let root = Kind::ca("root").signed();
    let server = Kind { valid: (-DAY, 5 * DAY), ..Kind::server("server") }.issued_by(&root);
    let chain = authority::pem(&[&server, &root]);
    let loaded = [
        load(&folder, "chain", chain, server.key_pem()),
        #[cfg(feature = "tls")]
        {
            let archive = archive("x", Some(&server.key), Some(&server), &[&root]);
            load_archive(&folder, "chain.p12", &archive, "x")
        },
    ];
    for loaded in loaded {
        let left = loaded.ok().not_after().duration_since(SystemTime::now()).unwrap();
        assert!(left.abs_diff(Duration::from_secs(5 * 86_400)) < Duration::from_secs(600), "{left:?}");
    }
}

#[cfg(feature = "cli")]
#[test]
fn the_command_warns_and_serves() {
    let folder = begin();
    let root = Kind::ca("root").signed();
    let server = Kind { valid: (-3 * DAY, -DAY), ..Kind::server("server") }.issued_by(&root);
    let both = folder.write("both.pem", format!("{}{}", server.key_pem(), server.pem()));
    let (known, unknown) =
        (folder.write("known", root.pem()), folder.write("unknown", Kind::ca("x").signed().pem()));
    for (roots, warned) in [(known, false), (unknown, true)] {
        let mut command = std::process::Command::new(common::process::COMMAND);
        command.args(["serve", "--tls-listen", "127.0.0.1:0", "--cert", &both, "--key", &both]);
        let mut process = common::process::Process::spawn(command.env("SSL_CERT_FILE", roots));
        let line = process.line("\"CN=server\" has expired");
        assert!(line.contains(&both) && line.contains("WARN"), "{line}");
        let address = process.address("https");
        let issuer =
            process.stderr.iter().any(|line| line.contains("\"CN=server\" is issued by \"CN=root\""));
        assert_eq!(issuer, warned, "{:#?}", process.stderr);
        let mut connector = SslConnector::builder(SslMethod::tls()).unwrap();
        connector.set_verify(SslVerifyMode::NONE);
        connector.build().connect("localhost", TcpStream::connect(address).unwrap()).unwrap();
    }
}
