"""Runs the recipes of README.md, "Behind a proxy": real proxies, each with its recipe, in front of a running `switchboard`.

    proxies.py [--idle SECONDS] SERVER_URL PROXY...      ws://127.0.0.1:8080 nginx haproxy apache caddy

The command must run with `--trusted-proxy 127.0.0.1`. Its clients ask for a host that any stranger could own, so that only this
option lets them through. With --idle, a WebSocket behind each proxy must survive so much silence of both sides. Exit code 1, with
a text that says why, at the first check that fails.
"""
import argparse
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from python_client import TlsSocket

PATIENCE = 10  # seconds, for each wait
HOST = "www.example"
ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = "/usr/lib/apache2/modules"  # of Debian


def recipe(name, replacements):
    """The block of that language in the README, with ports and files that are here."""
    text = (ROOT / "README.md").read_text()
    block = re.search(rf"^```{name}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE).group(1)
    for old, new in replacements.items():
        expect_that(f"{old!r} is in the recipe of {name}", old in block)
        block = block.replace(old, new)
    return block


def nginx(site):
    """Its configuration, and how it is started."""
    server = recipe("nginx", {
        "listen 80;": f"listen 127.0.0.1:{site.plain};",
        "listen 443 ssl;": f"listen 127.0.0.1:{site.tls} ssl;",
        "/etc/ssl/example.pem": site.certificate,
        "/etc/ssl/example.key": site.key,
        "http://127.0.0.1:8080": f"http://127.0.0.1:{site.upstream}",
    })
    user = "user root;" if os.geteuid() == 0 else ""
    paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{name}_temp_path {site.folder}/{name};" for name in paths)
    config = f"{user} daemon off; pid {site.folder}/pid; error_log stderr; events {{}} http {{ access_log off; {temporary} {server} }}"
    return ["nginx", "-e", "stderr", "-c", site.write("nginx.conf", config)]


def haproxy(site):
    both = site.write("both.pem", pathlib.Path(site.certificate).read_text() + pathlib.Path(site.key).read_text())
    config = recipe("haproxy", {
        "bind :80": f"bind 127.0.0.1:{site.plain}",
        "bind :443": f"bind 127.0.0.1:{site.tls}",
        "/etc/haproxy/example.pem": both,
        "127.0.0.1:8080": f"127.0.0.1:{site.upstream}",
    })
    return ["haproxy", "-db", "-f", site.write("haproxy.cfg", config)]


def apache(site):
    rules = recipe("apache", {"http://127.0.0.1:8080/": f"http://127.0.0.1:{site.upstream}/"})
    modules = "\n".join(
        f"LoadModule {name}_module {MODULES}/mod_{name}.so"
        for name in ("mpm_event", "authz_core", "headers", "proxy", "proxy_http", "ssl")
    )
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    config = f"""
ServerName {HOST}
ServerRoot {site.folder}
DefaultRuntimeDir {site.folder}
PidFile {site.folder}/pid
ErrorLog /dev/stderr
{modules}
{user}
Listen 127.0.0.1:{site.plain}
Listen 127.0.0.1:{site.tls}
<VirtualHost 127.0.0.1:{site.plain}>
{rules}
</VirtualHost>
<VirtualHost 127.0.0.1:{site.tls}>
SSLEngine on
SSLCertificateFile {site.certificate}
SSLCertificateKeyFile {site.key}
{rules}
</VirtualHost>
"""
    return ["apache2", "-DFOREGROUND", "-f", site.write("apache.conf", config)]


def caddy(site):
    def block(address, more):
        begin = f"{address} {{\nbind 127.0.0.1\n{more}"
        return recipe("caddy", {"example.com {": begin, "127.0.0.1:8080": f"127.0.0.1:{site.upstream}"})

    plain = block(f"http://{HOST}:{site.plain}", "")
    secure = block(f"https://{HOST}:{site.tls}", f"tls {site.certificate} {site.key}")
    config = f"{{\nadmin off\nauto_https off\nskip_install_trust\n}}\n{plain}{secure}"  # off: it asks nobody for certificates
    return ["caddy", "run", "--adapter", "caddyfile", "--config", site.write("Caddyfile", config)]


PROXIES = {"nginx": nginx, "haproxy": haproxy, "apache": apache, "caddy": caddy}


class Site:
    """Where a proxy listens, what it reads, and where it passes on to: a recorder of what it says before the server."""

    def __init__(self, folder, server):
        self.folder = folder
        self.certificate, self.key = make_certificate(folder)
        self.context = ssl.create_default_context(cafile=self.certificate)
        self.context.sslsocket_class = TlsSocket
        self.plain, self.tls = free_port(), free_port()
        self.recorder = Recorder(server)
        self.upstream = self.recorder.port

    def write(self, name, text):
        path = pathlib.Path(self.folder, name)
        path.write_text(text)
        return str(path)

    def port(self, scheme):
        return self.tls if scheme in ("https", "wss") else self.plain

    def connect(self, scheme, wrap=True):
        sock = socket.create_connection(("127.0.0.1", self.port(scheme)), PATIENCE)
        return self.context.wrap_socket(sock, server_hostname=HOST) if scheme == "https" and wrap else sock

    def page(self, scheme, path="/", lines=""):
        """The status and the rest of an answer to a plain HTTP request."""
        with self.connect(scheme) as sock:
            host = f"{HOST}:{self.port(scheme)}"
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        return int(answer.split(" ")[1]), answer

    def websocket(self, scheme, origin=None, path="/echo"):
        page = "https" if scheme == "wss" else "http"
        origin = origin or f"{page}://{HOST}:{self.port(scheme)}"
        tls = {"ssl": self.context, "server_hostname": HOST} if scheme == "wss" else {}
        sock = self.connect(scheme, wrap=False)
        url = f"{scheme}://{HOST}:{self.port(scheme)}{path}"
        options = {"proxy": None, "open_timeout": PATIENCE, "close_timeout": PATIENCE, "ping_interval": None, "max_size": None}
        return connect(url, sock=sock, origin=origin, **tls, **options)


class Recorder:
    """Passes connections on to the server, and keeps the heads of their requests."""

    def __init__(self, server):
        self.heads = []
        self.server = server
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.server)
            threading.Thread(target=self.pipe, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.pipe, args=(server, client, False), daemon=True).start()

    def pipe(self, source, target, is_request):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_request and re.match(rb"[A-Z]+ /", data):
                    self.heads.append(data.split(b"\r\n\r\n")[0].decode())
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def last(self, name):
        """All values of that header in the last request, joined."""
        lines = (line.split(": ", 1) for line in self.heads[-1].split("\r\n")[1:])
        return ", ".join(value for key, value in lines if key.lower() == name)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def make_certificate(folder):
    """The files of a certificate for the host and of its key."""
    certificate, key = f"{folder}/certificate.pem", f"{folder}/key.pem"
    what = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", *what, "-out", certificate, "-keyout", key]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return certificate, key


def expect(what, got, wanted):
    expect_that(f"{what}: {got!r} instead of {wanted!r}", got == wanted)


def expect_that(what, condition):
    if not condition:
        raise AssertionError(what)


@contextlib.contextmanager
def running(name, server):
    """A proxy, until the end of the block."""
    with tempfile.TemporaryDirectory() as folder:
        site = Site(folder, server)
        command = PROXIES[name](site)
        expect_that(f"{command[0]} is installed", shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin"))
        environment = os.environ | {"XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        process = subprocess.Popen(command, env=environment)
        try:
            for scheme in ("http", "https"):
                wait_for(site, scheme, process)
            yield site
        finally:
            process.terminate()
            process.wait(PATIENCE)


def wait_for(site, scheme, process):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return site.page(scheme)
        except OSError:
            expect("the exit code of the proxy", process.poll(), None)
            expect_that("the proxy listens", time.monotonic() < deadline)
            time.sleep(0.05)


def check_pages(site, scheme):
    status, text = site.page(scheme, lines="X-Forwarded-For: 192.0.2.66\r\nX-Forwarded-Proto: gopher\r\n")
    expect("the status of the page", status, 200)
    expect_that("it is the page", "<title>Switchboard" in text)
    seen = site.recorder.last
    expect("Host", seen("host"), f"{HOST}:{site.port(scheme)}")
    expect("X-Forwarded-Proto", seen("x-forwarded-proto"), scheme)
    expect("the nearest address", seen("x-forwarded-for").split(", ")[-1], "127.0.0.1")
    expect("an unknown path", site.page(scheme, "/nothing")[0], 404)


def check_websockets(site, scheme):
    with site.websocket(scheme) as ws:
        for message in ("hello", b"\0\xff", "ä" * 100_000):
            ws.send(message)
            expect("the echo", ws.recv(timeout=PATIENCE), message)
        ws.close(4000, "bye")
    expect("the close code", (ws.protocol.close_code, ws.protocol.close_reason), (4000, "bye"))
    foreign = ["https://evil.example", f"https://{HOST}:1", "null"]
    if scheme == "wss":  # a page of http is another's, and the server knows from the proxy that the client uses TLS
        foreign.append(f"http://{HOST}:{site.tls}")
    for origin in foreign:
        try:
            with site.websocket(scheme, origin=origin):
                raise AssertionError(f"{origin} may connect")
        except InvalidStatus as refused:
            expect(f"the status for {origin}", refused.response.status_code, 403)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--idle", type=float)
    parser.add_argument("server")
    parser.add_argument("proxies", nargs="+", choices=PROXIES)
    args = parser.parse_args()
    host, port = args.server.removeprefix("ws://").split(":")
    passed = 0
    with contextlib.ExitStack() as stack:
        idle = []
        for name in args.proxies:
            print(f"{name}:", flush=True)
            site = stack.enter_context(running(name, (host, int(port))))
            for page, socket_scheme in (("http", "ws"), ("https", "wss")):
                check_pages(site, page)
                check_websockets(site, socket_scheme)
                passed += 2
                if args.idle:
                    idle.append((name, stack.enter_context(site.websocket(socket_scheme, path="/echo-shared"))))
        if idle:
            time.sleep(args.idle)
        for name, ws in idle:
            ws.send(f"still there, {name}")
            expect("the echo", ws.recv(timeout=PATIENCE), f"still there, {name}")
            passed += 1
    print(f"{passed} checks passed")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the proxies end, too
    try:
        main()
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
