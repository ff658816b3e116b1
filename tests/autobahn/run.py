"""Runs wstest's fuzzingclient against one server, or its fuzzingserver for one client, and sums up its reports.

Started by run.sh, with the Python 2.7 of the environment that it made.
"""
from __future__ import print_function

import argparse
import collections
import fnmatch
import glob
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urlparse

from autobahntestsuite.case import (
    CaseBasename, CaseCategories, Cases, CaseSetname, CaseSubCategories)
from autobahntestsuite.caseset import CaseSet

AGENT = "switchboard"  # the name that the reports, and their files, give what is tested
PASSING = {"OK", "INFORMATIONAL", "NON-STRICT"}  # all others are failures
# The order in which the summary counts and lists them.
STATUSES = ["OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED",
            "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT", "FAILED"]


def parse_args():
    p = argparse.ArgumentParser(
        prog="run.sh", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Tests the WebSocket echo server at URL with the Autobahn testsuite; or, with --client, "
                    "a client that connects to URL, where the testsuite listens.",
        epilog="environment:\n"
               "  EXCLUDE     cases to leave out, e.g. '9.* 12.* 13.*'\n"
               "  REPORT_DIR  where the reports go (default: target/autobahn where there is\n"
               "              a target folder, else a new temporary folder)\n"
               "  TIMEOUT     seconds for the whole run (default 3600)\n"
               "exit status: 0 all passed, 1 some failed or did not run, 2 could not start")
    p.add_argument("--strict", action="store_true", help="NON-STRICT fails too")
    p.add_argument("--setup", action="store_true", help="only make the environment")
    p.add_argument("--client", metavar="COMMAND",
                   help="the client, which gets the URL and the name of the agent as last arguments; "
                        "for URL, ws://127.0.0.1:0 takes any port")
    p.add_argument("--cert", metavar="FILE", help="for --client with wss://: the server's certificate")
    p.add_argument("--key", metavar="FILE", help="and its key")
    p.add_argument("url", metavar="URL", help="ws://... or wss://...")
    p.add_argument("cases", metavar="CASE", nargs="*", help="e.g. 1.2.3, '5.*' or just 5 (default: all)")
    args = p.parse_args()
    if not args.url.startswith(("ws://", "wss://")):
        p.error("not a ws:// or wss:// URL: " + args.url)
    if args.client and args.url.startswith("wss://") and not (args.cert and args.key):
        p.error("--client with wss:// needs --cert and --key")
    return args


def die(message):
    print("autobahn: " + message, file=sys.stderr)
    sys.exit(2)


def order(case_id):
    return [int(n) for n in case_id.split(".")]


def select(patterns, excluded):
    """The ids of the cases to run.

    wstest could match patterns itself, but it would hang if none matched, and
    we have to know what should have run in order to see what did not.
    """
    known = CaseSet(CaseSetname, CaseBasename, Cases, CaseCategories, CaseSubCategories).CasesById

    def match(pattern):
        found = fnmatch.filter(known, pattern) + fnmatch.filter(known, pattern + ".*")
        if not found:
            die("no such case: " + pattern)
        return found

    chosen = {i for p in patterns or ["*"] for i in match(p)}
    chosen -= {i for p in excluded for i in match(p)}
    if not chosen:
        die("EXCLUDE leaves no case to run")
    return sorted(chosen, key=order)


def wstest(mode, spec, outdir):
    """The command. wstest itself always exits with 0: what counts are its reports."""
    for old in glob.glob(outdir + "/index.*") + glob.glob(outdir + "/%s_case_*" % AGENT):
        os.remove(old)  # or a run that wrote no reports would be judged by the last one's
    with open(outdir + "/spec.json", "w") as f:
        json.dump(dict(spec, outdir=outdir), f)
    program = os.path.join(os.path.dirname(sys.executable), "wstest")
    return [program, "--mode", mode, "--spec", outdir + "/spec.json"]


def within(command, timeout, log):
    """Runs a command, for so long at most."""
    status = subprocess.call(["timeout", "--foreground", "-k", "5", str(timeout)] + command,
                             stdout=log, stderr=subprocess.STDOUT)
    if status:
        print("autobahn: %s %s" % (command[0], "took longer than TIMEOUT=%s" % timeout
                                   if status == 124 else "exited with %d" % status))


def test_server(args, cases, outdir, timeout):
    """Runs the cases against a server."""
    options = {"closeHandshakeTimeout": 10, "serverConnectionDropTimeout": 10}  # not 1 s
    spec = {"servers": [{"agent": AGENT, "url": args.url, "options": options}], "cases": cases}
    with open(outdir + "/wstest.log", "w") as log:
        within(wstest("fuzzingclient", spec, outdir), timeout, log)
    return read_results(outdir)


def test_client(args, cases, outdir, timeout):
    """Runs the cases with a client, which asks for one after another and at last for the reports."""
    url = urlparse.urlsplit(args.url)
    port = url.port or free_port(url.hostname)
    # By name where there is TLS: that is what the certificate is for.
    listen = "%s://%s:%d" % (url.scheme, url.hostname, port)
    spec = {"url": listen, "cases": cases, "options": {"closeHandshakeTimeout": 10}}
    if url.scheme == "wss":
        spec.update(cert=os.path.abspath(args.cert), key=os.path.abspath(args.key))
    with open(outdir + "/wstest.log", "w") as log, open(outdir + "/client.log", "w") as client_log:
        server = subprocess.Popen(wstest("fuzzingserver", spec, outdir) + ["--webport", "0"],
                                  stdout=log, stderr=subprocess.STDOUT)
        try:
            await_port(url.hostname, port, server)
            within(shlex.split(args.client) + [listen, AGENT], timeout, client_log)
        finally:
            if server.poll() is None:
                server.terminate()
            server.wait()
    return read_results(outdir)


def free_port(host):
    listener = socket.socket()
    listener.bind((host, 0))
    port = listener.getsockname()[1]
    listener.close()
    return port


def await_port(host, port, server):
    for _ in range(600):
        try:
            return socket.create_connection((host, port), 1).close()
        except socket.error:
            if server.poll() is not None:
                die("wstest did not start")
            time.sleep(0.05)
    die("wstest does not listen")


def read_results(outdir):
    try:
        with open(outdir + "/index.json") as f:
            return json.load(f).get(AGENT, {})
    except IOError:  # it writes all its reports at the end, so there are none
        return {}


def summarize(cases, results, outdir, strict):
    """Prints the summary; returns whether all passed."""
    passing = PASSING - {"NON-STRICT"} if strict else PASSING

    def both(i):
        return results[i]["behavior"], results[i]["behaviorClose"]

    ran = [i for i in cases if i in results]
    not_run = [i for i in cases if i not in results]
    failed = [i for i in ran if not passing.issuperset(both(i))]

    behavior = collections.Counter(both(i)[0] for i in ran)
    close = collections.Counter(both(i)[1] for i in ran)
    print("%-18s%9s%15s" % ("", "behavior", "behaviorClose"))
    for s in STATUSES + sorted(set(behavior + close) - set(STATUSES)):
        if behavior[s] or close[s]:
            print("%-18s%9d%15d" % (s, behavior[s], close[s]))

    def listing(title, ids):
        """Prints ids, but a main group (12.*) by its name if all that was to run of it is there."""
        def group(i):
            return i.split(".")[0] + ".*"

        if not ids:
            return
        size, total = (collections.Counter(map(group, x)) for x in (ids, cases))
        whole = sorted((g for g in size if size[g] == total[g] > 1), key=lambda g: int(g[:-2]))
        words = ["%s (all %d)" % (g, size[g]) for g in whole]
        words += [i for i in ids if group(i) not in whole]
        print("\n%s (%d):" % (title, len(ids)))
        print(textwrap.fill(" ".join(words), 100, initial_indent="  ", subsequent_indent="  "))

    listing("NON-STRICT", [i for i in ran if "NON-STRICT" in both(i)])
    listing("UNIMPLEMENTED", [i for i in ran if "UNIMPLEMENTED" in both(i)])
    listing("NOT RUN", not_run)
    if not_run:
        print("\nend of wstest.log:")
        with open(outdir + "/wstest.log") as f:
            print("".join("  " + line[:300] for line in f.readlines()[-5:]), end="")

    # Why each of the others failed; those listed above need no more words.
    listed = {"NON-STRICT", "UNIMPLEMENTED"}
    reasons = [i for i in failed if set(both(i)) - passing - listed]
    if reasons:
        print("\nother failures (%d):" % len(reasons))
    for i in reasons:
        with open(os.path.join(outdir, results[i]["reportfile"])) as f:
            detail = json.load(f)
        print("  %s: behavior %s, behaviorClose %s, close code %s" %
              ((i,) + both(i) + (results[i]["remoteCloseCode"],)))
        for bad, why in zip(both(i), (detail["result"], detail["resultClose"])):
            if bad not in passing:
                print("      " + why[:200])

    print("\nreports: " + outdir)
    print("autobahn: %d passed, %d failed" % (len(ran) - len(failed), len(failed) + len(not_run)))
    return not failed and not not_run


def main():
    args = parse_args()
    cases = select(args.cases, os.environ.get("EXCLUDE", "").replace(",", " ").split())
    outdir = os.environ.get("REPORT_DIR") or (
        "target/autobahn" if os.path.isdir("target") else tempfile.mkdtemp(prefix="autobahn-"))
    outdir = os.path.abspath(outdir)
    if not os.path.isdir(outdir):
        os.makedirs(outdir)

    print("autobahn: %d cases %s" % (len(cases), "with " + args.client if args.client else "against " + args.url))
    sys.stdout.flush()
    start = time.time()
    test = test_client if args.client else test_server
    results = test(args, cases, outdir, os.environ.get("TIMEOUT", "3600"))
    print("autobahn: took %.0f s\n" % (time.time() - start))
    return 0 if summarize(cases, results, outdir, args.strict) else 1


if __name__ == "__main__":
    sys.exit(main())
