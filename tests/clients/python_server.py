"""Serves strangers_client (client.rs) with the PyPI package websockets, and runs it.

    python_server.py CERTIFICATE KEY CA_FILE CLIENT      certs/server.pem certs/server.key certs/ca.pem …/strangers_client

Exit code: that of the client.
"""
import http
import socket
import ssl
import subprocess
import sys
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

last_close = "none"


def handler(connection):
    global last_close
    path = connection.request.path
    if path == "/fragments":
        connection.send(["a message", " in", " pieces"])
    elif path == "/ping":
        connection.ping(b"x").wait(20)
        connection.send("got the pong")
    elif path == "/close":
        connection.close(4000, "bye")
    elif path == "/last-close":
        connection.send(last_close)
    elif path == "/break":
        connection.socket.shutdown(socket.SHUT_RDWR)
    else:
        try:
            for message in connection:
                connection.send(message)
        except ConnectionClosed:
            pass
    try:
        connection.recv()
    except ConnectionClosed as e:
        if path == "/echo" and e.rcvd and e.rcvd.code == 4001:
            last_close = "%d %s" % (e.rcvd.code, e.rcvd.reason)


def refuse(connection, request):
    if request.path == "/refuse":
        return connection.respond(http.HTTPStatus.UNAUTHORIZED, "who are you?\n")
    if request.path == "/redirect":
        response = connection.respond(http.HTTPStatus.FOUND, "")
        response.headers["Location"] = "/echo"
        return response


def start(tls):
    server = serve(handler, "127.0.0.1", 0, ssl=tls, process_request=refuse, subprotocols=["chat"],
                   select_subprotocol=select, max_size=None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.socket.getsockname()[1]


def select(connection, subprotocols):
    return "chat" if "chat" in subprotocols else None


def main():
    certificate, key, ca, client = sys.argv[1:]
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    urls = ["ws://127.0.0.1:%d" % start(None), "wss://localhost:%d" % start(tls)]
    sys.exit(subprocess.run([client, *urls, ca], timeout=120).returncode)


if __name__ == "__main__":
    main()
