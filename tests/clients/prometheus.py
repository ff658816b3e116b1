"""Checks what a managed server tells Prometheus, with the parser of the PyPI package prometheus_client.

    prometheus.py METRICS_SERVER CERT_FILE KEY_FILE CA_FILE

METRICS_SERVER is the example of that name. Exit code 1, with a text that says why, at the first check that fails.
"""
import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time

from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from python_client import TlsSocket

PATIENCE = 10  # seconds, for each wait
GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"
FAMILIES = {  # name, without the _total of counters: type, labels
    "switchboard_build_info": (GAUGE, {"version", "tls"}),
    "switchboard_uptime_seconds": (GAUGE, set()),
    "switchboard_max_connections": (GAUGE, set()),
    "switchboard_connections": (GAUGE, {"route", "kind"}),
    "switchboard_connections_opened": (COUNTER, {"route", "kind"}),
    "switchboard_blocked_connections": (GAUGE, set()),
    "switchboard_topics": (GAUGE, set()),
    "switchboard_users": (GAUGE, set()),
    "switchboard_connections_closed": (COUNTER, {"code", "side"}),
    "switchboard_slow_clients_closed": (COUNTER, set()),
    "switchboard_pushes": (COUNTER, {"result"}),
    "switchboard_handshake_duration_seconds": (HISTOGRAM, set()),
    "switchboard_push_duration_seconds": (HISTOGRAM, set()),
    "switchboard_ping_duration_seconds": (HISTOGRAM, set()),
    "switchboard_queued_bytes": (GAUGE, set()),
    "switchboard_handshakes_refused": (COUNTER, {"reason"}),
    "switchboard_connections_without_request": (COUNTER, set()),
    "switchboard_connections_ended_for_memory": (COUNTER, set()),
    "switchboard_handler_failures": (COUNTER, set()),
    "switchboard_messages": (COUNTER, {"direction"}),
    "switchboard_bytes": (COUNTER, {"direction"}),
    "switchboard_certificate_expiry_timestamp_seconds": (GAUGE, {"file", "subject"}),
    "process_cpu_seconds": (COUNTER, set()),
    "process_resident_memory_bytes": (GAUGE, set()),
    "process_virtual_memory_bytes": (GAUGE, set()),
    "process_open_fds": (GAUGE, set()),
    "process_max_fds": (GAUGE, set()),
    "process_threads": (GAUGE, set()),
    "process_start_time_seconds": (GAUGE, set()),
}
ODD_PATH, ODD_ROUTE = '/a%20%22b%22%5Cc', '/a "b"\\c'
checks = 0


def expect(what, got, wanted):
    global checks
    checks += 1
    if got != wanted:
        raise AssertionError(f"{what}: {got!r} instead of {wanted!r}")


class Server:
    def __init__(self, program, cert, key):
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = subprocess.Popen([program, cert, key], **pipes)
        self.cert = cert
        vars(self).update(json.loads(self.process.stdout.readline()))
        self.earlier = {}

    def stop(self):
        self.process.stdin.close()
        expect("the exit code of the server", self.process.wait(PATIENCE), 0)

    def ask(self, method, path, body=None, token=True):
        client = http.client.HTTPConnection(self.manage.removeprefix("http://"), timeout=PATIENCE)
        headers = {"Authorization": f"Bearer {self.token}"} if token else {}
        with contextlib.closing(client):
            client.request(method, path, body, headers)
            response = client.getresponse()
            return response.status, response.headers, response.read()

    def scrape(self):
        """The samples by name and labels, once it was checked that all is in its form, and that nothing that counts went back."""
        status, headers, body = self.ask("GET", "/metrics")
        expect("the status of /metrics", status, 200)
        expect("its type", headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
        samples, families = {}, {}
        for family in text_string_to_metric_families(body.decode()):
            expect(f"{family.name} is there once", family.name in families, False)
            families[family.name] = family.type
            if not family.documentation.endswith("."):
                raise AssertionError(f"{family.name} has no help")
            for sample in family.samples:
                labels = {name: value for name, value in sample.labels.items() if name != "le"}
                expect(f"labels of {family.name}", set(labels), FAMILIES[family.name][1])
                key = (sample.name, frozenset(sample.labels.items()))
                expect(f"{key} is there once", key in samples, False)
                samples[key] = sample.value
                counts = family.type == COUNTER or family.type == HISTOGRAM
                if counts and sample.value < self.earlier.get(key, 0):
                    raise AssertionError(f"{key} went back from {self.earlier[key]} to {sample.value}")
                if family.type == COUNTER:
                    expect("the name of a counter", sample.name, family.name + "_total")
        expect("all families", families, {name: kind for name, (kind, _) in FAMILIES.items()})
        self.earlier = samples
        return samples

    def get(self, name, **labels):
        """One value; a sample that is not there counts nothing."""
        return self.earlier.get((name, frozenset(labels.items())), 0)

    def wait_for(self, wanted):
        """Scrapes until these samples have these values. Keys are a name and labels."""
        begun, got = time.monotonic(), None
        while time.monotonic() - begun < PATIENCE:
            self.scrape()
            got = [self.get(name, **labels) for (name, labels), _ in wanted]
            if got == [value for _, value in wanted]:
                return
            time.sleep(0.1)
        raise AssertionError(f"{got} instead of {wanted}")

    def connect(self, path, url=None, **options):
        return connect((url or self.ws) + path, proxy=None, compression=None, ping_interval=None, **options)


def untouched(server):
    expect("without a token", server.ask("GET", "/metrics", token=False)[0], 401)
    expect("HEAD", server.ask("HEAD", "/metrics")[2], b"")
    expect("a parameter", server.ask("GET", "/metrics?name=x")[0], 400)
    server.scrape()
    for (name, labels), value in server.earlier.items():
        counts = name.startswith("switchboard_") and not name.endswith(("_seconds", "_seconds_sum"))
        if counts and not name.startswith(("switchboard_build", "switchboard_max")) and value != 0:
            raise AssertionError(f"nothing has happened yet, but {name} {set(labels)} is {value}")
    expect("build info", [v for (name, _), v in server.earlier.items() if name == "switchboard_build_info"], [1])


def traffic(server, ca_file):
    with contextlib.ExitStack() as stack:
        tls = ssl.create_default_context(cafile=ca_file)
        tls.sslsocket_class = TlsSocket
        wss = server.wss.replace("127.0.0.1", "localhost")
        one = stack.enter_context(server.connect("/echo?user=anna"))
        stack.enter_context(server.connect("/echo?user=anna", wss, ssl=tls))
        stack.enter_context(server.connect(ODD_PATH))
        shared = stack.enter_context(server.connect("/shared/a-path-that-a-client-invented"))
        for client in (one, shared):
            for text in ("hello", "you"):
                client.send(text)
                expect("an echo", client.recv(PATIENCE), text)
        for path, status in (("/refuse", 403), ("/nowhere", 404), ("/nowhere-else", 404)):
            try:
                server.connect(path)
                raise AssertionError(f"{path} was opened")
            except InvalidStatus as refusal:
                expect(path, refusal.response.status_code, status)
        for _ in range(16):
            expect("a push to nobody", server.ask("POST", "/@connections/b3kT9ZcYw4mQ1s8xAAAAKg", "x")[0], 410)
        expect("a broadcast", server.ask("POST", "/@broadcast?path=/echo", "to all")[0], 200)
        wanted = [
            (("switchboard_connections", {"route": "/echo", "kind": "synchronous"}), 2),
            (("switchboard_connections", {"route": ODD_ROUTE, "kind": "shared"}), 1),
            (("switchboard_connections", {"route": "/shared/*", "kind": "shared"}), 1),
            (("switchboard_connections", {"route": "/shared/*", "kind": "synchronous"}), 0),
            (("switchboard_connections_opened_total", {"route": "/echo", "kind": "synchronous"}), 2),
            (("switchboard_handshakes_refused_total", {"reason": "403"}), 1),
            (("switchboard_handshakes_refused_total", {"reason": "404"}), 2),
            (("switchboard_messages_total", {"direction": "in"}), 4),
            (("switchboard_messages_total", {"direction": "out"}), 6),
            (("switchboard_pushes_total", {"result": "unknown"}), 16),
            (("switchboard_handshake_duration_seconds_count", {}), 4),
            (("switchboard_handshake_duration_seconds_bucket", {"le": "+Inf"}), 4),
            (("switchboard_push_duration_seconds_count", {}), 1),
            (("switchboard_users", {}), 1),
            (("switchboard_topics", {}), 1),
            (("switchboard_queued_bytes", {}), 0),
        ]
        server.wait_for(wanted)
        pushed = [server.get("switchboard_pushes_total", result=result) for result in ("sent", "queued")]
        expect("pushes to those who are there", sum(pushed), 2)
        while server.get("switchboard_ping_duration_seconds_count") < 4:  # each is pinged after 0.2 s of silence
            time.sleep(0.1)
            server.scrape()
        if not 0 < server.get("switchboard_ping_duration_seconds_sum") < 4 * PATIENCE:
            raise AssertionError("nonsense for the time of pings")
        one.close(4321, "a code that a client invented")
        shared.close(1000)
    server.wait_for(
        [
            (("switchboard_connections_closed_total", {"code": "4000-4999", "side": "client"}), 1),
            (("switchboard_connections_closed_total", {"code": "1000", "side": "client"}), 3),
            (("switchboard_connections", {"route": "/echo", "kind": "synchronous"}), 0),
            (("switchboard_messages_total", {"direction": "in"}), 4),
            (("switchboard_users", {}), 0),
        ]
    )


def failures(server):
    with server.connect("/fail") as client:
        try:
            raise AssertionError(f"a handler that fails has said {client.recv(PATIENCE)!r}")
        except ConnectionClosed as closed:
            expect("its code", closed.rcvd.code, 1011)
    with contextlib.closing(socket.create_connection(server.ws.removeprefix("ws://").split(":"))):
        pass
    server.wait_for(
        [
            (("switchboard_handler_failures_total", {}), 1),
            (("switchboard_connections_closed_total", {"code": "1011", "side": "server"}), 1),
            (("switchboard_connections_without_request_total", {}), 1),
        ]
    )


def slow_clients(server):
    """They do not read: of one what does not fit is dropped, another one is closed."""
    for path, status in (("/drop", 429), ("/slow", 410)):
        with server.connect(path, max_queue=1) as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            listed = json.loads(server.ask("GET", f"/@connections?path={path}")[2])
            connection = listed["connections"][0]["id"]
            got = 200
            while got == 200:
                got = server.ask("POST", f"/@connections/{connection}", bytes(500_000))[0]
            expect(f"a push to {path}", got, status)
            if path == "/drop":
                server.scrape()
                server.wait_for([(("switchboard_blocked_connections", {}), 1)])
                if server.get("switchboard_queued_bytes") < 500_000:
                    raise AssertionError("nothing is queued")
            client.socket.shutdown(socket.SHUT_RDWR)
    server.wait_for(
        [
            (("switchboard_pushes_total", {"result": "full"}), 1),
            (("switchboard_pushes_total", {"result": "closed"}), 1),
            (("switchboard_slow_clients_closed_total", {}), 1),
            (("switchboard_queued_bytes", {}), 0),
            (("switchboard_blocked_connections", {}), 0),
        ]
    )


def itself(server):
    """What is told of the process and its certificates is what others know of them."""
    server.scrape()
    pid = server.process.pid
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    started = time.time() - server.get("process_start_time_seconds")
    for what, got, wanted, off in [
        ("threads", server.get("process_threads"), int(fields["Threads"]), 8),
        ("memory", server.get("process_resident_memory_bytes"), int(fields["VmRSS"].split()[0]) * 1024, 4 << 20),
        ("age", started, server.get("switchboard_uptime_seconds"), 5),
    ]:
        if abs(got - wanted) > off:
            raise AssertionError(f"{what}: {got} instead of {wanted}")
    if not 3 < server.get("process_open_fds") < 200 < server.get("process_max_fds"):
        raise AssertionError("descriptors")
    end = ssl._ssl._test_decode_cert(server.cert)["notAfter"]
    certificates = [(labels, value) for (name, labels), value in server.earlier.items() if "certificate" in name]
    expect("the end of the certificate", [value for _, value in certificates], [ssl.cert_time_to_seconds(end)])
    expect("its file", dict(certificates[0][0])["file"], server.cert)


def main():
    program, cert, key, ca_file = sys.argv[1:]
    server = Server(program, cert, key)
    try:
        untouched(server)
        traffic(server, ca_file)
        failures(server)
        slow_clients(server)
        itself(server)
        server.stop()
    finally:
        server.process.kill()
    print(f"metrics: {checks} checks passed")


main()
