"""Manages a server with AWS's own client for Python, boto3, as it is; and with curl.

    aws_client.py MANAGED_SERVER CERTIFICATE KEY CA_FILE      target/debug/examples/managed_server certs/server.pem …

It starts the server (managed_server.rs). Exit code 1, with a text that says why, at the first check that fails.
"""
import concurrent.futures
import contextlib
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from unittest import mock

import boto3
import botocore.auth
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

PATIENCE = 10  # seconds, for each wait
WHOLE_RUN = 120  # seconds
GONE = "AAAAAAAAAAAAAAAAAAAAAA"
CHECKS = []


def check(function):
    """Runs over http:// and over https://, and with a stage."""
    CHECKS.append(function)
    return function


class Server:
    def __init__(self, lines, scheme, stage, ca_file):
        self.lines, self.scheme, self.ca_file = lines, scheme, ca_file
        self.url = lines[scheme] + stage

    def client(self, secret=None, attempts=None, **options):
        """Of boto3, with its usual credentials. The access key's ID may be any."""
        retries = {} if attempts is None else {"retries": {"total_max_attempts": attempts, "mode": "standard"}}
        return boto3.client(
            "apigatewaymanagementapi",
            endpoint_url=self.url,
            aws_access_key_id=options.pop("id", "AKIDEXAMPLE"),
            aws_secret_access_key=secret or self.lines["token"],
            region_name=options.pop("region", "eu-central-1"),
            verify=self.ca_file,
            config=Config(connect_timeout=PATIENCE, read_timeout=PATIENCE, proxies={}, **retries, **options),
        )

    @contextlib.contextmanager
    def connection(self, path="/"):
        """A client of the server, and its ID."""
        with connect(self.lines["ws"] + path, max_size=None, proxy=None, open_timeout=PATIENCE) as ws:
            yield ws, ws.recv(timeout=PATIENCE)

    @contextlib.contextmanager
    def deaf_connection(self):
        """The ID of one that does not read any more, and whose queue may be full."""
        address = self.lines["ws"].removeprefix("ws://")
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), PATIENCE) as deaf:
            lines = ["GET /drop HTTP/1.1", f"Host: {address}", "Upgrade: websocket", "Connection: Upgrade",
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", "\r\n"]
            deaf.sendall("\r\n".join(lines).encode())
            received = b""
            while len(received.partition(b"\r\n\r\n")[2]) < 2 + len(GONE):
                received += deaf.recv(1024)
            yield received[-len(GONE):].decode()


def expect(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r:.200} instead of {wanted!r:.200}")


def expect_that(what, condition):
    if not condition:
        raise AssertionError(what)


@contextlib.contextmanager
def raises(kind, code, status):
    """What boto3 makes of a refusal."""
    try:
        yield (caught := [])
    except ClientError as e:
        caught.append(e)
        expect("the exception", type(e).__name__, kind)
        expect("the code", e.response["Error"]["Code"], code)
        expect("the status", e.response["ResponseMetadata"]["HTTPStatusCode"], status)
        expect_that("it has a message", e.response["Error"].get("Message"))
    else:
        raise AssertionError(f"no {kind}")


@check
def messages_are_posted(server):
    client = server.client()
    with server.connection() as (ws, id):
        for data, wanted in [
            ("hello", "hello"),
            ("gr\u00fc\u00dfe \U0001f600 \r\n".encode(), "gr\u00fc\u00dfe \U0001f600 \r\n"),
            (b"\xff\x00binary", b"\xff\x00binary"),
            (b"", ""),
            (b"t" * (128 << 10), "t" * (128 << 10)),
            (os.urandom(1000) + b"\xff", None),
        ]:
            response = client.post_to_connection(ConnectionId=id, Data=data)
            expect("the status", response["ResponseMetadata"]["HTTPStatusCode"], 200)
            expect("the message", ws.recv(timeout=PATIENCE), data if wanted is None else wanted)


@check
def a_connection_is_shown(server):
    with server.connection() as (ws, id):
        ws.send("x")
        expect("the echo", ws.recv(timeout=PATIENCE), "x")
        shown = server.client().get_connection(ConnectionId=id)
        now = datetime.datetime.now(datetime.timezone.utc)
        for name in ["ConnectedAt", "LastActiveAt"]:
            expect_that(f"{name}: {shown[name]!r}", abs(now - shown[name]) < datetime.timedelta(minutes=1))
        expect("the address", shown["Identity"]["SourceIp"], "127.0.0.1")
        expect_that("the user agent", shown["Identity"]["UserAgent"].startswith("Python/"))


def eventually_gone(client, id):
    """The server may not have seen the client's close frame yet."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            client.get_connection(ConnectionId=id)
        except client.exceptions.GoneException:
            return
        time.sleep(0.01)
    raise AssertionError("it is still there")


@check
def a_connection_is_deleted_and_then_gone(server):
    client = server.client()
    with server.connection() as (ws, id):
        response = client.delete_connection(ConnectionId=id)
        expect("the status", response["ResponseMetadata"]["HTTPStatusCode"], 204)
        try:
            ws.recv(timeout=PATIENCE)
            raise AssertionError("it was not closed")
        except ConnectionClosed as closed:
            expect("the close code", closed.rcvd.code, 1000)
    eventually_gone(client, id)
    for gone in [id, GONE]:
        with raises("GoneException", "GoneException", 410):
            client.post_to_connection(ConnectionId=gone, Data=b"x")
        with raises("GoneException", "GoneException", 410):
            client.get_connection(ConnectionId=gone)
        try:
            client.delete_connection(ConnectionId=gone)
            raise AssertionError("no exception")
        except client.exceptions.GoneException:
            pass


@check
def what_cannot_be_is_refused(server):
    client = server.client()
    for id in ["x", "L0SM9cOFvHcCIhw=", "../..", "a/b c%2F+\u00e4", "@connections", "?#&", GONE + "\r\nX: y"]:
        with raises("ClientError", "BadRequestException", 400):
            client.post_to_connection(ConnectionId=id, Data=b"x")
    with server.connection() as (ws, id):
        with raises("PayloadTooLargeException", "PayloadTooLargeException", 413):
            client.post_to_connection(ConnectionId=id, Data=bytes((1 << 20) + 1))
        client.post_to_connection(ConnectionId=id, Data=b"it goes on")
        expect("the message", ws.recv(timeout=PATIENCE), "it goes on")


@check
def a_full_queue_is_tried_again(server):
    with server.deaf_connection() as id:
        once = server.client(attempts=1)
        with raises("LimitExceededException", "LimitExceededException", 429) as caught:
            for _ in range(100):
                once.post_to_connection(ConnectionId=id, Data=bytes(1 << 20))
        expect("retries of one attempt", caught[0].response["ResponseMetadata"]["RetryAttempts"], 0)
        with raises("LimitExceededException", "LimitExceededException", 429) as caught:
            for _ in range(100):
                server.client(attempts=3).post_to_connection(ConnectionId=id, Data=bytes(1 << 20))
        expect("retries of three attempts", caught[0].response["ResponseMetadata"]["RetryAttempts"], 2)
        expect("Retry-After", caught[0].response["ResponseMetadata"]["HTTPHeaders"]["retry-after"], "1")


@check
def who_may_not_is_forbidden(server):
    forbidden = ("ForbiddenException", "ForbiddenException", 403)
    with server.connection() as (ws, id):
        begun = time.monotonic()
        with raises(*forbidden):
            server.client(secret=server.lines["token"][:-1] + "x").post_to_connection(ConnectionId=id, Data=b"x")
        expect_that("a wrong one waits", time.monotonic() - begun > 0.4)
        with raises(*forbidden):
            server.client(signature_version=UNSIGNED).get_connection(ConnectionId=id)
        reader = server.client(secret=server.lines["read_token"])
        expect("the address", reader.get_connection(ConnectionId=id)["Identity"]["SourceIp"], "127.0.0.1")
        for refused in [reader.delete_connection, lambda **id: reader.post_to_connection(Data=b"x", **id)]:
            with raises(*forbidden) as caught:
                refused(ConnectionId=id)
            expect_that("it says why", "only read" in str(caught[0]))
        now = datetime.datetime.now(datetime.timezone.utc)
        for minutes, is_good in [(-20, False), (-14, True), (14, True), (20, False)]:
            then = (now + datetime.timedelta(minutes=minutes)).replace(tzinfo=None)
            with mock.patch.object(botocore.auth, "get_current_datetime", lambda **_: then):
                if is_good:
                    server.client().get_connection(ConnectionId=id)
                else:
                    with raises(*forbidden) as caught:
                        server.client().get_connection(ConnectionId=id)
                    expect_that("it says why", "15 minutes" in str(caught[0]))
        for options in [{"id": "x"}, {"id": "any/thing"}, {"region": "us-east-1"}]:
            server.client(**options).post_to_connection(ConnectionId=id, Data=b"good")
            expect("the message", ws.recv(timeout=PATIENCE), "good")


@check
def what_is_signed_cannot_be_changed(server):
    client = server.client()
    with server.connection() as (ws, id):
        for change in [
            lambda request: setattr(request, "body", b"other"),
            lambda request: setattr(request, "method", "DELETE"),
            lambda request: setattr(request, "url", request.url.replace(id, GONE)),
            lambda request: setattr(request, "url", request.url + "?type=binary"),
            lambda request: request.headers.__setitem__("X-Amz-Date", "20200101T000000Z"),
        ]:
            handler = lambda request, **_: change(request)
            client.meta.events.register("before-send", handler)
            with raises("ForbiddenException", "ForbiddenException", 403):
                client.post_to_connection(ConnectionId=id, Data=b"this")
            client.meta.events.unregister("before-send", handler)
        client.post_to_connection(ConnectionId=id, Data=b"this")
        expect("the only message", ws.recv(timeout=PATIENCE), "this")


@check
def many_threads_post_at_once(server):
    client = server.client()
    with server.connection() as (ws, id):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            send = lambda n: [client.post_to_connection(ConnectionId=id, Data=f"{n} {m}") for m in range(25)]
            threads = [pool.submit(send, n) for n in range(8)]
            got = [tuple(map(int, ws.recv(timeout=PATIENCE).split())) for _ in range(8 * 25)]
            for thread in threads:
                thread.result()
        for n in range(8):
            expect(f"those of thread {n}", [m for sender, m in got if sender == n], list(range(25)))


@check
def curl_needs_nothing_else(server):
    token = server.lines["token"]
    ways = [
        ["--unix-socket", server.lines["unix"], "http://box"],
        ["--oauth2-bearer", token, "--cacert", server.ca_file, server.url.rstrip("/")],
    ]
    for way in ways:
        *options, url = way
        run = lambda path, *more: subprocess.run(
            ["curl", "-sS", "--noproxy", "*", "-w", "\n%{http_code}", *options, *more, url + path],
            capture_output=True, text=True, timeout=PATIENCE, check=True,
        ).stdout.rsplit("\n", 1)
        with server.connection() as (ws, id):
            expect("the status", run(f"/@connections/{id}", "-d", "it rains")[1], "200")
            expect("the message", ws.recv(timeout=PATIENCE), "it rains")
            shown, status = run(f"/@connections/{id}")
            expect("the answer", (json.loads(shown)["id"], status), (id, "200"))
            expect("the end", run(f"/@connections/{id}?code=4000", "-X", "DELETE"), ["", "204"])
        refusal, status = run(f"/@connections/{GONE}")
        expect("the status", status, "410")
        expect("a refusal", list(json.loads(refusal)), ["message"])


def main():
    program, certificate, key, ca_file = sys.argv[1:]
    signal.alarm(WHOLE_RUN)
    for name in list(os.environ):
        if name.upper().startswith("AWS_") or name.lower().endswith("_proxy"):
            del os.environ[name]
    started = subprocess.Popen([program, certificate, key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    lines = dict(line.split() for line in iter(started.stdout.readline, "\n"))
    servers = [Server(lines, *way, ca_file) for way in [("http", ""), ("https", "/prod"), ("http", "/$default/")]]
    begun = time.monotonic()
    for server in servers:
        for function in CHECKS:
            print(f"{time.monotonic() - begun:5.1f} s: {function.__name__} at {server.url}", flush=True)
            try:
                function(server)
            except Exception:
                traceback.print_exc()
                sys.exit(1)
    started.stdin.close()
    expect("the server's exit code", started.wait(PATIENCE), 0)
    print(f"boto3 {boto3.__version__}: {len(CHECKS) * len(servers)} checks passed")


if __name__ == "__main__":
    main()
