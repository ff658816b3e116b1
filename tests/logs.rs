#![cfg(all(feature = "cli", feature = "__tls", target_os = "linux"))]
//! Where the command's log goes: files that are moved, full or limited, a syslog daemon that comes and goes, systemd's journal.

mod common;

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    net::{SocketAddr, TcpStream},
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
};

use common::{PATIENCE, Until, eventually, folder::Folder, process::COMMAND, reply::Reply};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process, prlimit, waitid};

/// The command, serving on a port of the system's choice. Dropping it kills it.
struct Server {
    child: Child,
    /// Where the port is told.
    address: Option<SocketAddr>,
}

impl Server {
    /// With a log at the level `debug`.
    fn start(args: &[&str], stderr: impl Into<Stdio>, envs: &[(&str, String)]) -> Self {
        let mut command = Command::new(COMMAND);
        command.args(["--listen", "127.0.0.1:0", "--log-level", "debug"]).args(args);
        command.env_remove("JOURNAL_STREAM").envs(envs.iter().cloned());
        let child = command.stdin(Stdio::null()).stderr(stderr).spawn().unwrap();
        Self { child, address: None }
    }

    /// One whose log says the port in this file.
    fn with_file(args: &[&str], log: &str) -> Self {
        let mut server = Self::start(args, Stdio::inherit(), &[]);
        server.find_address(|| fs::read_to_string(log).unwrap_or_default());
        server
    }

    fn find_address(&mut self, mut log: impl FnMut() -> String) {
        eventually("it says where it listens", || {
            let text = log();
            let told =
                text.lines().find_map(|line| line.strip_suffix("/ is the page")?.split_once("http://"));
            self.address = told.map(|(_, address)| address.parse().unwrap());
            self.address.is_some()
        });
    }

    /// A request for something that is not there, which makes a line with this path.
    fn ask(&self, path: &str) {
        let mut stream = TcpStream::connect(self.address.unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(Reply::read(&mut stream).status, 404);
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Nothing is written while something else is done.
    fn paused<T>(&self, then: impl FnOnce() -> T) -> T {
        self.signal(Signal::STOP);
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        eventually("it stands still", || waitid(WaitId::Pid(self.pid()), options).unwrap().is_some());
        let done = then();
        self.signal(Signal::CONT);
        done
    }

    fn stop(mut self) {
        self.signal(Signal::TERM);
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until this line is in one of the files: more would be dropped if they came faster than they are written.
fn wait_until_written(folder: &Folder, line: usize) {
    let path = format!("/line-{line}-");
    eventually("it is written", || {
        // One may be renamed meanwhile.
        let mut files = fs::read_dir(&**folder).unwrap().map(|file| fs::read(file.unwrap().path()));
        files.any(|text| text.is_ok_and(|text| String::from_utf8_lossy(&text).contains(&path)))
    });
}

/// Asks all the time, while something else is done with the log in this folder; returns how often.
fn asking(server: &Server, folder: &Folder, then: impl FnOnce()) -> usize {
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                let n = asked.fetch_add(1, SeqCst);
                server.ask(&format!("line-{n}-"));
                if n % 100 == 99 {
                    wait_until_written(folder, n);
                }
            }
        });
        let _until = Until(&stop);
        then();
    });
    asked.into_inner()
}

fn assert_has_each_line_once(text: &str, asked: usize) {
    for n in 0..asked {
        let path = format!("/line-{n}-");
        let of = text.lines().filter(|line| line.contains(&path));
        assert_eq!(of.count(), 1, "{path} of {asked}");
    }
    assert!(text.lines().all(|line| line.starts_with("20")), "no line is cut");
}

#[test]
fn a_file_that_was_moved_is_opened_again_and_no_line_is_lost() {
    let folder = Folder::new();
    let log = folder.path("log");
    let server = Server::with_file(&["--log-to", &log], &log);
    let asked = asking(&server, &folder, || {
        for n in 1..=5 {
            fs::rename(&log, folder.path(&format!("log.{n}"))).unwrap();
            server.signal(Signal::HUP);
            eventually("it is opened again", || {
                fs::read_to_string(&log).is_ok_and(|text| text.contains(" was opened again"))
            });
        }
    });
    server.stop();
    let all = ["log.1", "log.2", "log.3", "log.4", "log.5", "log"].map(|name| {
        let text = fs::read_to_string(folder.path(name)).unwrap();
        assert!(!text.contains("SIGHUP has no effect"), "{text}");
        text
    });
    assert_has_each_line_once(&all.concat(), asked);
}

#[test]
fn a_file_that_cannot_be_opened_again_goes_on() {
    let folder = Folder::new();
    let log = folder.path("log");
    let server = Server::with_file(&["--log-file", &log], &log);
    fs::rename(&log, folder.path("moved")).unwrap();
    fs::create_dir(&log).unwrap();
    server.signal(Signal::HUP);
    let moved = || fs::read_to_string(folder.path("moved")).unwrap();
    eventually("it is said", || moved().contains("cannot be opened again"));
    server.ask("afterwards");
    server.stop();
    assert!(moved().contains("/afterwards") && moved().ends_with("ended\n"));
}

/// As logrotate does with `copytruncate`: what comes between the two is lost there, but the file stays one.
#[test]
fn a_file_that_was_cut_off_goes_on_at_its_beginning() {
    let folder = Folder::new();
    let log = folder.path("log");
    let server = Server::with_file(&["--log-to", &log, "--log-max-size", "1M"], &log);
    (0..20).for_each(|n| server.ask(&format!("before-{n}")));
    eventually("all is written", || fs::read_to_string(&log).unwrap().contains("/before-19"));
    OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
    server.ask("after");
    server.stop();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("20") && text.contains("/after") && !text.contains("/before"), "{text:?}");
}

#[test]
fn at_its_bound_a_file_is_begun_anew() {
    const SIZE: u64 = 16 << 10;
    let folder = Folder::new();
    let log = folder.path("log");
    let server = Server::with_file(&["--log-to", &log, "--log-max-size", "16K", "--log-keep", "2"], &log);
    let size = |name: &str| fs::metadata(folder.path(name)).map_or(0, |file| file.len());
    let mut asked = 0;
    eventually("three of them are full", || {
        (0..20).for_each(|_| {
            server.ask(&format!("line-{asked}-{}", "x".repeat(100)));
            asked += 1;
        });
        wait_until_written(&folder, asked - 1);
        for name in ["log", "log.1", "log.2"] {
            assert!(size(name) <= SIZE, "{name}");
        }
        assert_eq!(size("log.3"), 0, "it is not kept");
        size("log.2") > 0 && asked > 800
    });
    server.stop();
    let all = ["log.2", "log.1", "log"].map(|name| fs::read_to_string(folder.path(name)).unwrap()).concat();
    let numbers = all.lines().filter_map(|line| line.split_once("/line-")?.1.split('-').next()?.parse().ok());
    let numbers: Vec<usize> = numbers.collect();
    assert!(numbers.len() > 50 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    assert_eq!(numbers.last(), Some(&(asked - 1)));
}

/// A limit of the file's size stands for a disk: what is above it cannot be written.
#[test]
fn what_a_full_disk_has_cost_is_told_when_there_is_room_again() {
    let folder = Folder::new();
    let log = folder.path("log");
    let server = Server::with_file(&["--log-to", &log], &log);
    let text = || fs::read_to_string(&log).unwrap();
    let of = |path: &str| text().lines().filter(|line| line.contains(path)).count();
    let limit = |current| {
        prlimit(Some(server.pid()), Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    };
    // In the midst of the next line, whichever that is.
    let full = server.paused(|| {
        let full = text().len() as u64 + 30;
        limit(Some(full));
        full
    });
    (0..50).for_each(|n| server.ask(&format!("lost-{n}-")));
    eventually("the disk is full", || text().len() as u64 == full);
    limit(None);
    // By itself, without another line.
    eventually("it is told", || text().contains(" lost since 20"));
    server.ask("after");
    server.stop();
    let text = text();
    let told = text.lines().find(|line| lost([*line]) > 0).unwrap();
    assert!(told.starts_with("20") && told.contains("too large"), "behind the line that was cut: {told}");
    // How many were written again depends on when the writer came to them; and lines of another kind are lost, too.
    assert!(of("/lost-") + lost(text.lines()) >= 50, "{text}");
    assert!(of("/after") == 1 && text.ends_with("ended\n"), "{text}");
}

/// How many lines these say that were lost.
fn lost<'a>(lines: impl IntoIterator<Item = &'a str>) -> usize {
    let told = lines.into_iter().filter_map(|line| {
        let before = line.split_once(" of the log w")?.0;
        assert!(line.contains(" lost since 20"), "{line}");
        before.trim_end_matches(" lines").trim_end_matches(" line").rsplit(' ').next()?.parse::<usize>().ok()
    });
    told.sum()
}

#[test]
fn what_is_no_file_has_no_size() {
    for to in ["stderr", "syslog"] {
        let mut command = Command::new(COMMAND);
        let ended = command.args(["--log-to", to, "--log-max-size", "1M"]).output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.code() == Some(1) && told.contains("add --log-to FILE"), "{told}");
    }
}

#[test]
fn a_disk_that_stays_full_holds_nobody() {
    let folder = Folder::new();
    let socket = folder.path("socket");
    let listen = format!("unix:{socket}");
    let server = Server::start(&["--log-to", "/dev/full", "--listen", &listen], Stdio::inherit(), &[]);
    eventually("it serves", || {
        let Ok(mut stream) = std::os::unix::net::UnixStream::connect(&socket) else { return false };
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        Reply::read(&mut stream).status == 200
    });
    server.stop();
}

/// What has arrived at a socket as of now.
fn received(syslog: &UnixDatagram, lines: &mut Vec<String>) {
    syslog.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(n) = syslog.recv(&mut buffer) {
        lines.push(String::from_utf8(buffer[..n].to_vec()).unwrap());
    }
}

#[test]
fn syslog_gets_datagrams_and_is_told_what_it_has_missed() {
    let folder = Folder::new();
    let path = folder.path("log");
    let stderr = File::create(folder.path("stderr")).unwrap();
    let mut server = Server::start(&["--log-to", &format!("syslog:{path}")], stderr, &[]);
    let said = || fs::read_to_string(folder.path("stderr")).unwrap();
    eventually("it is said that nobody is there", || said().contains("as soon as a syslog daemon listens"));
    eventually("it listens", || {
        server.address = listening(server.child.id());
        server.address.is_some()
    });
    let (mut lines, mut asked) = (Vec::new(), 0);
    // A daemon comes, goes, and comes again. When the writer has come to a line is not to be seen from outside.
    for _ in 0..2 {
        eventually("it is told what was lost", || {
            let _ = fs::remove_file(&path);
            (0..5).for_each(|n| server.ask(&format!("line-{}-", asked + n)));
            let syslog = UnixDatagram::bind(&path).unwrap();
            asked += 5;
            let mut now = Vec::new();
            eventually("something arrives", || {
                server.ask("arrives");
                received(&syslog, &mut now);
                now.iter().any(|line| line.contains("/arrives"))
            });
            let told = now.iter().position(|line| line.contains(" lost since "));
            assert!(told.is_none_or(|told| told == 0), "before all else: {now:?}");
            lines.extend(now);
            told.is_some()
        });
    }
    let tag = format!("switchboard[{}]: ", server.child.id());
    for line in &lines {
        let (priority, rest) = line.strip_prefix('<').unwrap().split_once('>').unwrap();
        assert!(["28", "30", "31"].contains(&priority) && rest.starts_with(&tag), "{line}");
        assert!(line.len() <= 1024 && !line.contains('\n'), "{line}");
    }
    let syslog = again(&path);
    server.stop();
    received(&syslog, &mut lines);
    assert!(lines.last().unwrap().ends_with(": ended"), "{lines:?}");
}

/// The socket of a daemon that was started anew.
fn again(path: &str) -> UnixDatagram {
    fs::remove_file(path).unwrap();
    UnixDatagram::bind(path).unwrap()
}

/// The port of a process that has one.
fn listening(id: u32) -> Option<SocketAddr> {
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{id}/fd"))
        .unwrap()
        .filter_map(|entry| {
            fs::read_link(entry.ok()?.path())
                .ok()?
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')
                .map(str::to_owned)
        })
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let port = table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_it =
            fields.get(3) == Some(&"0A") && inodes.iter().any(|inode| fields.get(9) == Some(&inode.as_str()));
        is_it.then(|| u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok())?
    });
    port.map(|port| ([127, 0, 0, 1], port).into())
}

#[test]
fn a_syslog_that_is_stuck_holds_nobody() {
    let folder = Folder::new();
    let path = folder.path("log");
    let syslog = UnixDatagram::bind(&path).unwrap(); // and nobody reads
    let mut server = Server::start(&["--log-to", &format!("syslog:{path}")], Stdio::inherit(), &[]);
    eventually("it listens", || {
        server.address = listening(server.child.id());
        server.address.is_some()
    });
    (0..600).for_each(|n| server.ask(&format!("line-{n}")));
    server.stop();
    drop(syslog);
}

#[test]
fn systemds_journal_gets_priorities_and_no_dates() {
    let folder = Folder::new();
    for is_journal in [true, false] {
        let path = folder.write("stderr", "");
        let stderr = OpenOptions::new().append(true).open(&path).unwrap();
        let metadata = stderr.metadata().unwrap();
        let (device, inode) = (metadata.dev(), metadata.ino() + u64::from(!is_journal));
        let envs = [("JOURNAL_STREAM", format!("{device}:{inode}"))];
        let mut server = Server::start(&[], stderr, &envs);
        server.find_address(|| fs::read_to_string(&path).unwrap());
        server.ask("line");
        server.stop();
        let text = fs::read_to_string(&path).unwrap();
        let is_right = |line: &str| match is_journal {
            true => {
                ["<6>", "<7>"].iter().any(|priority| line.starts_with(priority)) && !line.contains("[INFO]")
            }
            false => line.starts_with("20") && (line.contains(" [INFO] ") || line.contains(" [DEBUG] ")),
        };
        assert!(text.lines().all(is_right) && text.contains("/line"), "{text}");
    }
}

#[test]
fn why_it_does_not_start_has_a_priority_too() {
    let folder = Folder::new();
    let path = folder.write("stderr", "");
    let stderr = OpenOptions::new().append(true).open(&path).unwrap();
    let metadata = stderr.metadata().unwrap();
    let envs = [("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino()))];
    let mut server = Server::start(&["--listen", "192.0.2.1:1"], stderr, &envs);
    assert_eq!(server.child.wait().unwrap().code(), Some(1));
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.lines().any(|line| line.starts_with("<3>switchboard: ") && line.contains("192.0.2.1:1")),
        "{text}"
    );
}
