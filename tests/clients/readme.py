"""Runs what the README says in "From any process": in a shell, in Python and in Rust, with a server that it starts.

    readme.py SWITCHBOARD REMOTE_EXAMPLE      target/release/switchboard target/debug/examples/remote

Each line of a shell, and each block of another language, has to end with exit code 0, but for those in `OTHERS`; and the clients have
to get what is pushed. Exit code 1, with a text that says why, at the first that does not.
"""
import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

PATIENCE = 20  # seconds, for each command
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LINES = [  # what clients get of the lines of the shell, and of the programs
    ("curl --unix-socket", None),
    ("curl --unix-socket", "one"),
    ("curl -H", "all"),
    ("switchboard list", None),
    ("switchboard show", None),
    ("switchboard push", "one"),
    ("switchboard read", None),
    ("switchboard broadcast", "all"),
    ("switchboard events", None),
    ("switchboard end", "end"),
    ("switchboard top", None),
]


def blocks():
    with open(os.path.join(ROOT, "README.md")) as file:
        section = file.read().split("\n## From any process\n")[1].split("\n## ")[0]
    return re.findall(r"```(\w+)[^\n]*\n(.*?)```", section, re.S)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Run:
    def __init__(self, program, folder):
        self.folder, self.port, self.manage = folder, free_port(), free_port()
        os.symlink(os.path.abspath(program), os.path.join(folder, "switchboard"))
        self.env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "NO_PROXY": "*"}
        self.passed = 0
        self.open = contextlib.ExitStack()

    def adapted(self, text):
        """With a socket, a port and times of our own."""
        text = text.replace("/run/box.sock", f"{self.folder}/box.sock").replace("127.0.0.1:9090", f"127.0.0.1:{self.manage}")
        return text.replace("--timeout 30", "--timeout 0.5").replace("jq -r", "jq --unbuffered -r")

    def command(self, line, codes=(0,), seconds=PATIENCE):
        result = subprocess.run(["bash", "-c", line], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=seconds,
                                stdin=subprocess.DEVNULL)
        if result.returncode not in codes:
            sys.exit(f"{line}\nexit code {result.returncode}: {result.stdout}{result.stderr}")
        self.passed += 1
        return result.stdout

    def serve(self, block):
        *before, serve = block.strip().splitlines()
        self.command("\n".join(before))
        assert serve.startswith("switchboard serve "), serve
        self.server = subprocess.Popen(["bash", "-c", f"exec {self.adapted(serve)} --listen 127.0.0.1:{self.port}"], cwd=self.folder,
                                       env=self.env, stderr=subprocess.DEVNULL)
        for _ in range(PATIENCE * 20):
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
                client.connect(f"{self.folder}/box.sock")
                return
            time.sleep(0.05)
        sys.exit("the server did not start")

    def client(self, name):
        return connect(f"ws://127.0.0.1:{self.port}/chat?room=lobby&name={name}", proxy=None)

    def begin(self):
        """Two are in the chat, the first of whom is meant."""
        self.open.close()
        self.env["SWITCHBOARD_MANAGE"] = f"unix:{self.folder}/box.sock"
        self.command('until [ -z "$(switchboard list --json)" ]; do sleep 0.05; done')
        self.clients = [self.open.enter_context(self.client("ann"))]
        self.env["ID"] = json.loads(self.command("switchboard list --json"))["id"]
        self.clients.append(self.open.enter_context(self.client("bob")))
        self.command("switchboard list --user bob --json | grep -q bob")

    def got(self, client, text):
        while text not in client.recv(timeout=PATIENCE):
            pass

    def check(self, what):
        if what == "one":
            self.got(self.clients[0], "it rains")
        elif what == "all":
            for client in self.clients:
                self.got(client, "it rains")
        elif what == "end":
            try:
                self.got(self.clients[0], "never")
            except ConnectionClosed as closed:
                assert closed.rcvd.code == 4001 and closed.rcvd.reason == "log in again", closed

    def shell(self, block, expected):
        for line in block.strip().splitlines():
            command = self.adapted(line)
            if line.startswith("export "):
                self.env["SWITCHBOARD_MANAGE"] = self.command(f"{command}\necho -n $SWITCHBOARD_MANAGE")
                continue
            begin, what = expected.pop(0)
            assert line.startswith(begin), f"{line!r} is none of {begin!r}"
            if "switchboard events" in line:  # it goes on until somebody ends it
                self.events(command)
            elif "switchboard top" in line:  # there is no terminal here
                self.command(command, (2,))
            else:
                self.command(command, (5,) if "switchboard read" in line else (0,))  # nobody says anything that is for it
            self.check(what)

    def events(self, command):
        process = subprocess.Popen(["bash", "-c", command], cwd=self.folder, env=self.env, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            expected, begun = set(), time.monotonic()
            while time.monotonic() - begun < PATIENCE:  # until it listens
                with self.client("eve"):
                    expected.add(self.command("switchboard list --user eve --json | jq -r .id | tail -n 1"))
                if select.select([process.stdout], [], [], 1)[0]:
                    break
            os.killpg(process.pid, signal.SIGTERM)  # a shell in the background ignores SIGINT, and so do those it starts
            told = process.communicate(timeout=PATIENCE)[0].splitlines(keepends=True)
            assert told and expected.issuperset(told), f"{command}: {told!r} is none of {expected!r}"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def main():
    program, example = (os.path.abspath(path) for path in sys.argv[1:])
    found = blocks()
    assert [language for language, _ in found] == ["sh", "sh", "sh", "python", "rust"], found
    with tempfile.TemporaryDirectory() as folder:
        run = Run(program, folder)
        run.serve(found[0][1])
        try:
            run.begin()
            expected = list(LINES)
            run.shell(found[1][1], expected)
            run.shell(found[2][1], expected)
            assert not expected, expected
            run.begin()
            code = f"ID = '{run.env['ID']}'\n{run.adapted(found[3][1])}"
            out = subprocess.run([sys.executable, "-c", code], cwd=folder, env=run.env, capture_output=True, text=True, timeout=PATIENCE)
            assert (out.returncode, out.stdout) == (0, "127.0.0.1\n"), out
            run.check("one")
            with open(os.path.join(ROOT, "examples/remote.rs")) as file:
                assert file.read().endswith("\n\n" + found[4][1]), "README and examples/remote.rs differ"
            out = run.command(example)
            assert out.count("Sent") >= 2, out
            run.check("all")
            run.passed += 1
        finally:
            run.open.close()
            run.server.send_signal(signal.SIGTERM)
            try:
                assert run.server.wait(PATIENCE) == 0
            finally:
                run.server.kill()
        print(f"readme: {run.passed} passed")


main()
