"""Runs proxies that tell the client's address, and not in the header lines of the default: by the PROXY protocol, on a Unix socket, in
`Forwarded`. Real ones, in front of `switchboard`, which they start.

    proxy_protocol.py PROGRAM nginx haproxy

Each client has an address of its own in 127.0.0.0/8, which has to be in the server's log, and counts for its limit of connections.
Exit code 1, with a text that says why, at the first check that fails.
"""
import argparse
import contextlib
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

from proxies import HOST, PATIENCE, expect, expect_that, free_port, make_certificate

STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"  # of Debian: libnginx-mod-stream
HAPROXY = """
defaults
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""


def nginx_stream(site):
    """Bytes, with version 1."""
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port}; proxy_pass {target}; proxy_protocol on; }}" for port, target in site.passes("unix:")
    )
    load = f"load_module {STREAM};" if os.path.exists(STREAM) else ""
    return nginx(site, f"{load} {site.user} daemon off; pid {site.folder}/pid; error_log stderr; events {{}} stream {{ {servers} }}")


def nginx_http(site):
    """Requests, on a Unix socket."""
    return nginx_requests(site, "proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;")


def nginx_forwarded(site):
    """The same, with RFC 7239."""
    return nginx_requests(site, 'proxy_set_header Forwarded "for=$remote_addr;proto=$scheme";')


def nginx_requests(site, lines):
    paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{name}_temp_path {site.folder}/{name};" for name in paths)
    upgrade = "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }"
    location = f"""location / {{ proxy_pass http://unix:{site.socket}:; proxy_http_version 1.1; proxy_set_header Host $http_host;
        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; {lines} }}"""
    server = f"""server {{ listen 127.0.0.1:{site.ports["ws"]}; listen 127.0.0.1:{site.ports["wss"]} ssl;
        ssl_certificate {site.certificate}; ssl_certificate_key {site.key}; {location} }}"""
    return nginx(site, f"""{site.user} daemon off; pid {site.folder}/pid; error_log stderr; events {{}}
        http {{ access_log off; {temporary} {upgrade} {server} }}""")


def nginx(site, config):
    return ["nginx", "-e", "stderr", "-c", site.write("nginx.conf", config)]


def haproxy_line(site):
    """Bytes, with version 1."""
    return haproxy_tcp(site, "send-proxy")


def haproxy_binary(site):
    """Bytes, with version 2 and much beside the addresses."""
    return haproxy_tcp(site, "send-proxy-v2 proxy-v2-options authority,crc32c,unique-id")


def haproxy_tls(site):
    """The proxy has TLS, and passes on what is in it; with version 2 it says so."""
    both = site.write("both.pem", pathlib.Path(site.certificate).read_text() + pathlib.Path(site.key).read_text())
    return haproxy(site, f"""
listen plain
    mode tcp
    bind 127.0.0.1:{site.ports["ws"]}
    server one unix@{site.socket} send-proxy-v2-ssl
listen tls
    mode tcp
    bind 127.0.0.1:{site.ports["wss"]} ssl crt {both}
    server one unix@{site.socket} send-proxy-v2-ssl check
""")


def haproxy_tcp(site, how):
    blocks = "".join(
        f"listen l{port}\n    mode tcp\n    bind 127.0.0.1:{port}\n    server one {target} {how} check\n"
        for port, target in site.passes("unix@")
    )
    return haproxy(site, blocks)


def haproxy_forwarded(site):
    both = site.write("both.pem", pathlib.Path(site.certificate).read_text() + pathlib.Path(site.key).read_text())
    return haproxy(site, f"""
frontend all
    mode http
    bind 127.0.0.1:{site.ports["ws"]}
    bind 127.0.0.1:{site.ports["wss"]} ssl crt {both}
    http-request set-header Forwarded for=%[src];proto=http
    http-request set-header Forwarded for=%[src];proto=https if {{ ssl_fc }}
    default_backend box
backend box
    mode http
    server one unix@{site.socket}
""")


def haproxy(site, config):
    return ["haproxy", "-db", "-f", site.write("haproxy.cfg", HAPROXY + config)]


FORWARDED = ["--trusted-proxy", "unix", "--proxy-headers", "forwarded"]
SPOKEN = ["--proxy-protocol", "unix", "--proxy-protocol", "127.0.0.1", "--host", HOST]
# What the server is started with.
KINDS = {
    "nginx": [(nginx_stream, SPOKEN), (nginx_http, ["--trusted-proxy", "unix"]), (nginx_forwarded, FORWARDED)],
    "haproxy": [
        (haproxy_line, SPOKEN),
        (haproxy_binary, SPOKEN),
        (haproxy_tls, SPOKEN),
        (haproxy_forwarded, FORWARDED),
    ],
}


class Site:
    """A server, and where a proxy listens in front of it."""

    def __init__(self, folder, program, options):
        self.folder, self.socket, self.log = folder, f"{folder}/socket", pathlib.Path(folder, "log")
        self.certificate, self.key = make_certificate(folder)
        self.tls = ssl.create_default_context(cafile=self.certificate)
        self.ports = {"ws": free_port(), "wss": free_port()}
        self.user = "user root;" if os.geteuid() == 0 else ""
        listen = ["--listen", f"unix:{self.socket},mode=0666", "--tls-listen", "127.0.0.1:0"]
        listen += ["--cert", self.certificate, "--key", self.key, "--max-connections-per-address", "2"]
        logged = ["--log-to", str(self.log), "--log-level", "debug"]
        self.server = subprocess.Popen([program, *listen, *logged, *options])
        self.wait("it listens", lambda: "https://" in self.text() and os.path.exists(self.socket))
        self.upstream = re.search(r" https://(127.0.0.1:\d+)/ is the page", self.text())[1]

    def passes(self, unix):
        """Where a proxy of bytes passes on to: in the clear on a Unix socket, TLS as it is."""
        return [(self.ports["ws"], unix + self.socket), (self.ports["wss"], self.upstream)]

    def text(self):
        return self.log.read_text() if self.log.exists() else ""

    def wait(self, what, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            expect("the exit code of the server", self.server.poll(), None)
            expect_that(f"{what}: not within {PATIENCE} s", time.monotonic() < deadline)
            time.sleep(0.05)

    def write(self, name, text):
        path = pathlib.Path(self.folder, name)
        path.write_text(text)
        return str(path)

    def connect(self, scheme, source):
        """Through the proxy, from this address."""
        sock = socket.create_connection(("127.0.0.1", self.ports[scheme]), PATIENCE, (source, 0))
        return self.tls.wrap_socket(sock, server_hostname=HOST) if scheme == "wss" else sock

    def handshake(self, scheme):
        """With lines that a client may lie with, and an Origin: one of https is of the same host if the client uses TLS."""
        page, host = "https" if scheme == "wss" else "http", f"{HOST}:{self.ports[scheme]}"
        lines = [
            "GET /echo HTTP/1.1", f"Host: {host}", f"Origin: {page}://{host}", "Connection: Upgrade", "Upgrade: websocket",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "X-Forwarded-For: 192.0.2.66", "X-Forwarded-Proto: gopher", "Forwarded: for=192.0.2.66", "", "",
        ]
        return "\r\n".join(lines).encode()

    def websocket(self, scheme, source):
        """An open one, which echoes. No library: theirs read and write in two threads, which some TLS does not survive."""
        sock = self.connect(scheme, source)
        sock.sendall(self.handshake(scheme))
        stream = sock.makefile("rb")
        expect("the answer", stream.readline(), b"HTTP/1.1 101 Switching Protocols\r\n")
        while stream.readline() != b"\r\n":
            pass
        sock.sendall(b"\x81\x85\0\0\0\0hello")
        expect("the echo", stream.read(7), b"\x81\x05hello")
        return sock

    def answer(self, scheme, source):
        """What is said to somebody who may be refused before having asked for anything; within TLS that is nothing."""
        with contextlib.suppress(ConnectionError, ssl.SSLError), self.connect(scheme, source) as sock:
            with contextlib.suppress(BrokenPipeError):
                sock.sendall(self.handshake(scheme))
            return sock.recv(4096)
        return b""


@contextlib.contextmanager
def running(command, site):
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    proxy = subprocess.Popen(command, env=environment)

    def listens():
        expect("the exit code of the proxy", proxy.poll(), None)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", site.ports["wss"]), 1):
            return True
        return False

    try:
        site.wait("the proxy listens", listens)
        yield
    finally:
        proxy.terminate()
        proxy.wait(PATIENCE)
        site.server.terminate()
        expect("the exit code of the server", site.server.wait(PATIENCE), 0)


def check(site, scheme, first):
    """Two clients, each with two connections; a third one is too many."""
    with contextlib.ExitStack() as stack:
        for client in (f"127.1.0.{first}", f"127.1.0.{first + 1}"):
            for _ in range(2):
                stack.enter_context(site.websocket(scheme, client))
            site.wait(f"{client} is in the log", lambda: re.search(rf"open: /echo from {client}[: ]", site.text()))
            answer = site.answer(scheme, client)
            expect_that(f"one too many: {answer!r}", answer == b"" or answer.startswith(b"HTTP/1.1 429 "))
            site.wait("it was one too many", lambda: re.search(rf" {client}(:| by ).*too many connections", site.text()))
    expect_that("nobody is believed to be somebody else", "from 192.0.2.66" not in site.text())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("proxies", nargs="+", choices=KINDS)
    args = parser.parse_args()
    passed = 0
    for name in args.proxies:
        for kind, options in KINDS[name]:
            print(f"{kind.__name__}:", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                os.chmod(folder, 0o755)
                site = Site(folder, args.program, options)
                with running(kind(site), site):
                    try:
                        check(site, "ws", 1)
                        check(site, "wss", 11)
                    except Exception:
                        print(site.text()[-4000:])
                        raise
                    passed += 2
    print(f"{passed} checks passed")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started ends, too
    try:
        main()
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
