"""Asks a managed server for all that its description says, and much that it does not, with the PyPI package schemathesis.

    openapi.py METRICS_SERVER CERT_FILE KEY_FILE [OPTION OF SCHEMATHESIS...]

METRICS_SERVER is the example of that name. The streams, which do not end, and the WebSocket are left out. Exit code 1 if an answer is not as described.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

STREAMS = "^/@(events|stats|hub)$"
CONNECTIONS = 8
# 410 is no mistake of who asks.
CONFIGURATION = """
hooks = "hooks.py"
[checks]
positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 410, 429, "5xx"]
"""

# Nobody waits for messages as long as one may.
HOOKS = """
import schemathesis

@schemathesis.hook
def before_call(context, case, kwargs):
    query = case.query if isinstance(case.query, dict) else {}
    if type(query.get("timeout")) in (int, float) and 0.1 < query["timeout"] <= 60:
        query["timeout"] = 0.1
    elif case.path.endswith("/messages") and "timeout" not in query:
        case.query = query | {"timeout": 0.1}
"""


def stay_connected(url, is_over):
    """There is always somebody to push to, to list and to close."""
    while not is_over.is_set():
        try:
            with connect(url, proxy=None, max_queue=None) as client:
                for _ in client:
                    pass
        except (ConnectionClosed, OSError):
            pass
        time.sleep(0.01)


def main():
    program, cert, key, *options = sys.argv[1:]
    server = subprocess.Popen([program, cert, key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    is_over = threading.Event()
    folder = tempfile.mkdtemp()
    try:
        place = json.loads(server.stdout.readline())
        for n in range(CONNECTIONS):
            url = f"{place['ws']}/{'echo' if n % 2 else 'shared/x'}?user={n}"
            threading.Thread(target=stay_connected, args=(url, is_over), daemon=True).start()
        headers = {"Authorization": f"Bearer {place['token']}"}
        request = urllib.request.Request(place["manage"] + "/openapi.json", headers=headers)
        with urllib.request.urlopen(request) as response:
            paths = json.load(response)["paths"]
        with open(os.path.join(folder, "schemathesis.toml"), "w") as file:
            file.write(CONFIGURATION)
        with open(os.path.join(folder, "hooks.py"), "w") as file:
            file.write(HOOKS)
        command = [os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "schemathesis"), "run", place["manage"] + "/openapi.json"]
        command += ["-H", f"Authorization: {headers['Authorization']}", "--exclude-path-regex", STREAMS]
        # Without a token the answer has to be 401 there, but AWS's clients know 403 only; `ignored_auth` takes both.
        command += ["--checks", "all", "--exclude-checks", "missing_required_header", "--request-timeout", "30", "--no-color", *options]
        status = subprocess.run(command, cwd=folder).returncode
        is_over.set()
        server.stdin.close()
        if status != 0 or server.wait(30) != 0:
            sys.exit(1)
        print(f"openapi: {len(paths)} paths, checks passed")
    finally:
        server.kill()
        shutil.rmtree(folder)


main()
