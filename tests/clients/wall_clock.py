"""Runs `switchboard` on a machine whose clock is wrong, and is set while it serves: a box without a battery boots in 1970.

    wall_clock.py PROGRAM CERT_FILE KEY_FILE CA_FILE

libfaketime (Debian: faketime) stands for the machine's clock; the monotonic one stays as it is. The program has TLS and a management
listener. Exit code 1, with a text that says why, at the first check that fails.
"""
import calendar
import contextlib
import email.utils
import glob
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from websockets.sync.client import connect

PATIENCE = 20  # seconds, for each wait
LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"
YEAR = 365 * 24 * 3600
BEGUN = time.time()


def expect(what, got, wanted):
    expect_that(f"{what}: {got!r} instead of {wanted!r}", got == wanted)


def expect_that(what, condition):
    if not condition:
        raise AssertionError(what)


def eventually(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        expect_that(f"{what}: not within {PATIENCE} s", time.monotonic() < deadline)
        time.sleep(0.05)


class Box:
    """The program, and the clock of its machine."""

    def __init__(self, program, certificate, key, ca, folder, begin):
        self.program, self.folder = program, folder
        self.file, self.log = pathlib.Path(folder, "time"), pathlib.Path(folder, "log")
        self.manage = f"unix:{folder}/manage"
        self.set(begin)
        libraries = glob.glob(LIBRARY)
        expect_that("faketime is installed", libraries)
        environment = os.environ | {
            "LD_PRELOAD": libraries[0],
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "TZ": "UTC",
        }
        options = ["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--cert", certificate, "--key", key]
        options += ["--manage", self.manage, "--ping-interval", "1", "--ping-timeout", "6"]
        options += ["--log-file", str(self.log), "--log-level", "debug"]
        self.process = subprocess.Popen([program, *options], env=environment)
        eventually("it says where it listens", lambda: "has the console" in self.text())
        self.ports = {scheme: int(re.search(rf" {scheme}://127.0.0.1:(\d+)/ is the page", self.text())[1]) for scheme in ("http", "https")}
        self.tls = ssl.create_default_context(cafile=ca)

    def set(self, seconds):
        """Sets the clock; it goes on from there."""
        self.now, self.at = seconds, time.monotonic()
        new = pathlib.Path(self.folder, "new")
        new.write_text(time.strftime("@%Y-%m-%d %H:%M:%S\n", time.gmtime(seconds)))
        new.rename(self.file)

    def is_now(self, seconds):
        """Whether a time is that of the machine's clock, roughly."""
        return abs(seconds - (self.now + time.monotonic() - self.at)) < 60

    def text(self):
        return self.log.read_text() if self.log.exists() else ""

    def websocket(self, path, scheme="http"):
        url = f"{scheme.replace('http', 'ws')}://localhost:{self.ports[scheme]}{path}"
        tls = {"ssl": self.tls} if scheme == "https" else {}
        return connect(url, proxy=None, ping_interval=None, max_queue=None, open_timeout=PATIENCE, close_timeout=PATIENCE, **tls)

    def date(self, scheme):
        """The date of a response."""
        kind, tls = (http.client.HTTPSConnection, {"context": self.tls}) if scheme == "https" else (http.client.HTTPConnection, {})
        with contextlib.closing(kind("localhost", self.ports[scheme], timeout=PATIENCE, **tls)) as client:
            client.request("GET", "/")
            response = client.getresponse()
            expect("the status of the page", response.status, 200)
            return calendar.timegm(email.utils.parsedate(response.headers["Date"]))

    def metric(self, name):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(self.manage.removeprefix("unix:"))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join(iter(lambda: client.recv(65536), b"")).decode()
        return float(re.search(rf"^{name} (.*)$", text, re.MULTILINE)[1])

    def connections(self):
        """What the program, on a machine with a right clock, lists."""
        listed = subprocess.run([self.program, "list", "--json", "--manage", self.manage], check=True, capture_output=True, text=True)
        return [json.loads(line) for line in listed.stdout.splitlines()]


def parse_iso(text):
    return calendar.timegm(time.strptime(text.split(".")[0], "%Y-%m-%dT%H:%M:%S"))


def check_start(box):
    lines = box.text().splitlines()
    expect_that("it says that the clock is before the program", any("clock says 1970-01-01" in line and "was made at 20" in line for line in lines))
    expect_that("and before the certificate", any("is not yet valid: it is valid from 20" in line and "clock says 1970-01-01" in line for line in lines))
    expect_that("the log is of 1970", all(line.startswith("1970-01-01T") for line in lines))


def check_served(box, sockets):
    """All goes on, whatever time it is."""
    for scheme in ("http", "https"):
        date = box.date(scheme)
        expect_that(f"the date of a response, {time.gmtime(date)}", box.is_now(date))
    for name, ws in sockets.items():
        if name == "clock":
            continue
        ws.send(f"hello {name}")
        expect("the echo", ws.recv(timeout=PATIENCE), f"hello {name}")
    with contextlib.suppress(TimeoutError):
        while True:
            sockets["clock"].recv(timeout=0)  # what has come before
    begun = time.monotonic()
    for _ in range(8):  # after a pause the next ones are early
        sockets["clock"].recv(timeout=PATIENCE)
    expect_that("it ticks once a second", 2 < time.monotonic() - begun < 20)


def check_waits(box, set_clock):
    """Deadlines that begin before the clock is set, and end after that: no earlier, and no later."""
    silent = socket.create_connection(("127.0.0.1", box.ports["http"]), PATIENCE)  # a handshake has 10 s
    deaf = socket.create_connection(("127.0.0.1", box.ports["http"]), PATIENCE)  # no pong within 6 s, after 1 s
    deaf.sendall(
        b"GET /echo-shared HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    begun = time.monotonic()
    expect_that("it is connected", deaf.recv(4096).startswith(b"HTTP/1.1 101 "))
    set_clock()
    while deaf.recv(4096):
        pass
    cut = time.monotonic() - begun
    expect_that(f"who answers no ping is cut after {cut:.1f} s", 1 < cut < PATIENCE)
    expect("who says nothing", silent.recv(4096), b"")
    ended = time.monotonic() - begun
    expect_that(f"who says nothing is ended after {ended:.1f} s", 5 < ended < PATIENCE)
    silent.close()
    deaf.close()


def check_remembered(box):
    """What was said before the clock was set is no hour old."""
    with box.websocket("/chat?room=r&name=late&since=") as ws:
        expect_that("it is remembered", any("said in 1970" in ws.recv(timeout=PATIENCE) for _ in range(10)))


def main():
    program, certificate, key, ca = sys.argv[1:]
    passed = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        box = Box(program, certificate, key, ca, folder, 10)
        try:
            check_start(box)
            paths = {"plain": ("/echo", "http"), "tls": ("/echo", "https"), "shared": ("/echo-shared", "http"), "clock": ("/clock", "http")}
            sockets = {name: stack.enter_context(box.websocket(*where)) for name, where in paths.items()}
            with box.websocket("/chat?room=r&name=early") as early:
                early.send("said in 1970")
                while "said in 1970" not in early.recv(timeout=PATIENCE):
                    pass
            check_served(box, sockets)
            passed += 2
            for when in (BEGUN, BEGUN + 10 * YEAR, BEGUN - 10 * YEAR, 5, BEGUN):
                check_waits(box, lambda: box.set(when))
                check_served(box, sockets)
                check_remembered(box)
                passed += 3
            eventually("the others have ended", lambda: len(box.connections()) == len(sockets))
            listed = box.connections()
            for connection in listed:
                for name in ("connectedAt", "lastActiveAt"):
                    told = parse_iso(connection[name])
                    expect_that(f"{name} is right now: {connection[name]}", BEGUN - 600 < told < time.time() + 600)
            started = box.metric("process_start_time_seconds")
            expect_that(f"when it was started is right now: {started}", abs(started - BEGUN) < 600)
            expect_that("the log is of today", box.text().splitlines()[-1].startswith(time.strftime("%Y-%m-", time.gmtime(BEGUN))))
            for ws in sockets.values():
                ws.close()
            box.process.terminate()
            expect("the exit code", box.process.wait(PATIENCE), 0)
            passed += 4
        finally:
            box.process.kill()
            box.process.wait()
    print(f"{passed} checks passed")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the server ends, too
    try:
        main()
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
