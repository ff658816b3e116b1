"""Checks a running `switchboard` command with the PyPI package websockets: a client that nobody here wrote.

    python_client.py WS_URL WSS_URL CA_FILE      ws://127.0.0.1:8080 wss://127.0.0.1:8443 certs/ca.pem

The command must run with its default limits. Exit code 1, with a text that says why, at the first check that fails.
"""
import concurrent.futures
import contextlib
import http.client
import os
import select
import signal
import ssl
import struct
import sys
import threading
import time
import traceback

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

SLOWER = int(os.environ.get("SLOWER", 1))  # so many times as long may all take: for a server that is emulated
PATIENCE = 10 * SLOWER  # seconds, for each wait
WHOLE_RUN = 120 * SLOWER  # seconds
LIMIT = 1 << 20  # the default of --max-message-size
MANY = 200
MASK = bytes(4)  # of zeros: a payload stays readable
EXAMPLE = "/csp/user/MyApp.MyWebSocketServer.cls"
CHECKS = []


def check(function):
    """Runs over ws:// and over wss://."""
    CHECKS.append(function)
    return function


class TlsSocket(ssl.SSLSocket):
    """Lets a thread send while another one receives. The library does that, but OpenSSL is not made for it: with TLS 1.3, about one
    request in a thousand was lost that was written while session tickets were read, and then both ends waited for the other."""

    def do_handshake(self, *args):
        self.lock = threading.Lock()
        self.patience = None
        super().do_handshake(*args)

    def settimeout(self, timeout):
        if self.version() is None:  # there has been no handshake yet
            super().settimeout(timeout)
        else:
            self.patience = timeout
            super().settimeout(0)

    def recv(self, *args):
        return self.alone(super().recv, args, select.POLLIN)

    def send(self, *args):  # by sendall, too
        return self.alone(super().send, args, select.POLLOUT)

    def alone(self, call, args, awaited):
        """Calls it under the lock, and waits without it."""
        while True:
            try:
                with self.lock:
                    return call(*args)
            except ssl.SSLWantReadError:
                awaited = select.POLLIN
            except ssl.SSLWantWriteError:
                awaited = select.POLLOUT
            except BlockingIOError:
                pass
            ready = select.poll()
            ready.register(self, awaited)
            if not ready.poll(None if self.patience is None else 1000 * self.patience):
                raise TimeoutError(f"nothing within {self.patience} s")


class Server:
    def __init__(self, url, ca_file):
        self.url = url
        self.scheme, self.authority = url.split("://")
        self.ca_file = ca_file
        self.tls = None
        if self.scheme == "wss":
            self.tls = self.tls_context()
            self.tls.sslsocket_class = TlsSocket

    def tls_context(self):
        return ssl.create_default_context(cafile=self.ca_file)

    def connect(self, path="/echo", **options):
        """A connection; it offers permessage-deflate, as this library always does."""
        options = {"max_size": None, "ping_interval": None, "close_timeout": PATIENCE} | options
        return connect(self.url + path, ssl=self.tls, proxy=None, open_timeout=PATIENCE, **options)

    def http(self, method, path):
        """The status, the headers and the body of an answer to a plain HTTP request."""
        if self.tls:
            client = http.client.HTTPSConnection(self.authority, timeout=PATIENCE, context=self.tls_context())
        else:
            client = http.client.HTTPConnection(self.authority, timeout=PATIENCE)
        with contextlib.closing(client):
            client.request(method, path)
            response = client.getresponse()
            return response.status, response.headers, response.read().decode()


def expect(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: {shorten(got)} instead of {shorten(wanted)}")


def expect_that(what, condition):
    if not condition:
        raise AssertionError(what)


def shorten(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(value)} long)"


def expect_echo(ws, message):
    ws.send(message)
    expect("the echo", ws.recv(timeout=PATIENCE), message)


def send_raw(ws, frame):
    with ws.protocol_mutex:  # or the library might send at the same time, which corrupts TLS
        ws.socket.sendall(frame)


def expect_close(ws, code, reason=None):
    """The next thing to come is this close frame of the server, and then the end of the stream."""
    try:
        message = ws.recv(timeout=PATIENCE)
    except ConnectionClosed as closed:
        expect_that(f"no close frame came, but: {closed!r}, {closed.__cause__!r}", closed.rcvd)
        expect("the connection broke, although a close frame came", repr(closed.__cause__), "None")
        expect("the close code", closed.rcvd.code, code)
        expect_that(f"the close reason: {closed.rcvd.reason!r}", reason is None or reason in closed.rcvd.reason)
        expect_that("the stream did not end", ws.wait_closed(PATIENCE))
    else:
        raise AssertionError(f"a message instead of a close frame: {shorten(message)}")


def expect_refusal(server, path, status, text, **options):
    try:
        with server.connect(path, **options):
            raise AssertionError(f"{path} was opened")
    except InvalidStatus as refused:
        response = refused.response
        expect("the status", response.status_code, status)
        body = (response.body or b"").decode()
        expect_that(f"the body should say {text!r}: {body!r}", text in body)


# The echo.


@check
def text_comes_back(server):
    with server.connect() as ws:
        for message in ["hello", "", "größe", "beyond the BMP: \U0001F600 \U00010348 \U0010FFFF", "\0"]:
            expect_echo(ws, message)


@check
def binary_comes_back(server):
    with server.connect() as ws:
        for message in [bytes(range(256)), b"", b"\0"]:
            expect_echo(ws, message)


@check
def messages_up_to_the_limit_come_back(server):
    with server.connect() as ws:
        for size in [125, 126, 65535, 65536, LIMIT]:
            expect_echo(ws, "x" * size)
            expect_echo(ws, os.urandom(size))
        expect_echo(ws, "\U0001F600" * (LIMIT // 4))


@check
def fragments_come_back_as_one_message(server):
    def with_a_ping_in_between():
        yield "one "
        expect_that("no pong between fragments", ws.ping("between").wait(PATIENCE))
        yield "message"

    with server.connect() as ws:
        for fragments, whole in [
            (["a", "b", "", "c"], "abc"),
            ([b"\x00"] * 1000, bytes(1000)),
            (["", ""], ""),
        ]:
            ws.send(fragments)
            expect("the echo", ws.recv(timeout=PATIENCE), whole)
        ws.send([b"\xf0\x9f", b"\x98", b"\x80"], text=True)
        expect("a character in three fragments", ws.recv(timeout=PATIENCE), "\U0001F600")
        ws.send(with_a_ping_in_between())
        expect("the echo", ws.recv(timeout=PATIENCE), "one message")


@check
def a_burst_comes_back_in_order(server):
    with server.connect(max_queue=None) as ws:
        for i in range(1000):
            ws.send(str(i))
        for i in range(1000):
            expect("the echo", ws.recv(timeout=PATIENCE), str(i))


@check
def pings_are_answered(server):
    for path in ["/echo", EXAMPLE]:
        with server.connect(path) as ws:
            for payload in [b"", b"payload", bytes(125)]:
                expect_that(f"no pong for {payload!r}", ws.ping(payload).wait(PATIENCE))
            ws.pong(b"nobody asked")
            expect_echo(ws, "still here")


@check
def no_subprotocol_and_no_extension_is_chosen(server):
    with server.connect(subprotocols=["chat", "superchat"]) as ws:
        expect("the subprotocol", ws.subprotocol, None)
        for name in ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"]:
            expect(name, ws.response.headers.get(name), None)
        expect_echo(ws, "hello")


# The end.


@check
def close_code_and_reason_are_echoed(server):
    for code, reason in [(1000, ""), (1000, "done"), (3000, "a reason"), (4999, "ü" * 61)]:
        with server.connect() as ws:
            begun = time.monotonic()
            ws.close(code, reason)
            expect("the answer", (ws.close_code, ws.close_reason), (code, reason))
            expect_that("the end took longer than 3 s", time.monotonic() - begun < 3 * SLOWER)


@check
def a_close_frame_without_a_code_is_answered(server):
    with server.connect() as ws:
        send_raw(ws, b"\x88\x80" + MASK)
        expect_close(ws, 1005, "")


@check
def a_message_too_big_is_1009_and_says_so(server):
    for message in [bytes(LIMIT + 1), "x" * (LIMIT + 1), bytes(8 * LIMIT), [bytes(LIMIT // 2)] * 3]:
        with server.connect() as ws:
            # The server need not wait for the end of it.
            with contextlib.suppress(ConnectionClosed):
                ws.send(message)
            expect_close(ws, 1009, f"{LIMIT} bytes")


INVALID = [
    ("a frame without a mask", 1002, b"\x81\x01x"),
    ("a reserved bit", 1002, b"\xc1\x81" + MASK + b"x"),
    ("a reserved opcode", 1002, b"\x83\x80" + MASK),
    ("a long ping", 1002, b"\x89\xfe\x00\x7e" + MASK + bytes(126)),
    ("a fragmented ping", 1002, b"\x09\x80" + MASK),
    ("a continuation of nothing", 1002, b"\x80\x81" + MASK + b"x"),
    ("a message within a message", 1002, b"\x01\x81" + MASK + b"x\x81\x81" + MASK + b"y"),
    ("a close frame of one byte", 1002, b"\x88\x81" + MASK + b"\x03"),
    ("a close code that may not be sent", 1002, b"\x88\x82" + MASK + struct.pack(">H", 1005)),
    ("text that is not UTF-8", 1007, b"\x81\x82" + MASK + b"\xc3\x28"),
    ("half a character", 1007, b"\x81\x81" + MASK + b"\xc3"),
    ("a close reason that is not UTF-8", 1007, b"\x88\x83" + MASK + b"\x03\xe8\xff"),
    ("a length of a terabyte", 1009, b"\x82\xff" + struct.pack(">Q", 1 << 40) + MASK + b"x"),
]


@check
def invalid_frames_end_the_connection(server):
    for what, code, frame in INVALID:
        with server.connect() as ws:
            send_raw(ws, frame)
            try:
                expect_close(ws, code)
            except AssertionError as e:
                raise AssertionError(f"{what}: {e}") from None


# The original's example.


@check
def the_example_echoes(server):
    with server.connect(EXAMPLE) as ws:
        for message in ["hello", b"\x00\xff", "", "exit, but not quite", b"exit it is not either"]:
            expect_echo(ws, message)


@check
def the_example_ends_at_exit(server):
    with server.connect(EXAMPLE) as ws:
        expect_echo(ws, "hello")
        ws.send("exit")
        expect_close(ws, 1000)


def the_example_says_that_nothing_came(server):
    """After 10 s; run beside the checks, and not one of them."""
    begun = time.monotonic()
    with server.connect(EXAMPLE) as ws:
        text = ws.recv(timeout=10 + PATIENCE)
        silence = time.monotonic() - begun
        expect_that(f"the text: {text!r}", text.startswith("Server timed-out at "))
        expect_that(f"it came after {silence:.1f} s", 9.5 < silence < 10 + PATIENCE)
        expect_echo(ws, "still here")
        ws.send("exit")
        expect_close(ws, 1000)


# What is refused.


@check
def a_wrong_path_is_404(server):
    for path in ["/nothing", "/echo/", "/", "/csp/user/"]:
        expect_refusal(server, path, 404, "no WebSocket at this path")


@check
def a_foreign_origin_is_403(server):
    for origin in ["http://evil.example", "https://evil.example", "null"]:
        expect_refusal(server, "/echo", 403, "Origin", origin=origin)
    with server.connect(origin=server.url.replace("ws", "http", 1)) as ws:
        expect_echo(ws, "a page of the same host")


@check
def plain_http_is_answered(server):
    status, headers, body = server.http("GET", "/")
    expect("the page", (status, headers.get_content_type()), (200, "text/html"))
    expect_that("the page has no end", body.rstrip().endswith("</html>"))
    status, headers, body = server.http("HEAD", "/")
    expect("HEAD", (status, body), (200, ""))
    expect("GET of what is not there", server.http("GET", "/nothing")[0], 404)
    status, headers, _ = server.http("GET", "/echo")
    expect("GET of a WebSocket", (status, headers["Sec-WebSocket-Version"]), (426, "13"))


# Many.


@check
def many_connections_at_once(server):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(server.connect()) for _ in range(MANY)]
        for i, ws in enumerate(sockets):
            ws.send(f"I am {i}")
        for i, ws in enumerate(sockets):
            expect("the echo", ws.recv(timeout=PATIENCE), f"I am {i}")
    for ws in sockets:
        expect("the close code", ws.close_code, 1000)


def fail(what):
    print(f"python client: FAILED: {what}", flush=True)
    os._exit(1)  # whatever threads still wait for something


def run(name, server, function, *args):
    try:
        function(*args)
    except BaseException as e:
        if not isinstance(e, AssertionError):
            traceback.print_exc()
        fail(f"{name.replace('_', ' ')}, over {server.scheme}: {e!r}")


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    signal.signal(signal.SIGALRM, lambda *_: fail(f"not done within {WHOLE_RUN} s"))
    signal.alarm(WHOLE_RUN)
    servers = [Server(url.rstrip("/"), sys.argv[3]) for url in sys.argv[1:3]]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        silence = the_example_says_that_nothing_came
        silences = [(server, pool.submit(silence, server)) for server in servers]
        for function in CHECKS:
            for server in servers:
                run(function.__name__, server, function, server)
        for server, future in silences:
            run(silence.__name__, server, future.result)
    print(f"python client: {(len(CHECKS) + 1) * len(servers)} checks passed")


if __name__ == "__main__":
    main()
