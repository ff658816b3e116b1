// What the tests with a browser share: a Chromium, the servers it talks to, and checks that are counted.
//
// Run from the root of the repository, with playwright-core beside this file or above it: tests/run copies it there.
import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { chromium } from "playwright-core";

export const PATIENCE = 20_000; // ms, for each wait
const CHECK = 60_000; // ms, for each check: they take a few seconds, and what else runs on the machine is not their fault
const WHOLE_RUN = 480_000; // ms

// So that the browser is one process tree on loopback and nothing else: no updates, no accounts, no UDP.
const FLAGS = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const servers = new Set();
let passed = 0;
let failed = 0;

// However this process ends, it leaves no server behind.
process.on("exit", () => servers.forEach((server) => server.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));
setTimeout(() => {
  console.log(`FAILED: not done within ${WHOLE_RUN / 1000} s`);
  process.exit(1);
}, WHOLE_RUN).unref();

/** Calls `fn` with a browser that lives no longer; Playwright makes its profile and removes it. */
export async function withBrowser(fn) {
  const browser = await chromium.launch({
    executablePath: findChromium(),
    chromiumSandbox: process.getuid() !== 0, // root cannot have one
    timeout: 30_000,
    args: FLAGS,
  });
  try {
    return await fn(browser);
  } finally {
    await within(browser.close(), "the end of the browser");
  }
}

function findChromium() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const folders = (process.env.PATH ?? "").split(delimiter);
  const files = ["chromium", "chromium-browser"].flatMap((name) => folders.map((folder) => join(folder, name)));
  const found = files.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (!found) throw new Error("no chromium in PATH, and none in $CHROMIUM");
  return found;
}

/** Starts `switchboard serve` on ports that the system chooses, or on those given. */
export function startServer(binary, args = [], { tls = true, port = 0, tlsPort = 0 } = {}) {
  const secure = ["--tls-listen", `127.0.0.1:${tlsPort}`, "--cert", "certs/server.pem", "--key", "certs/server.key"];
  return start(binary, ["serve", "--listen", `127.0.0.1:${port}`, ...(tls ? secure : []), ...args], ports(tls));
}

/** `port` and `tlsPort` of a program that says where it listens as `switchboard serve` does. */
const ports = (tls) => (said) => {
  const [port, tlsPort] = ["http", "https"].map((scheme) => said.match(`\\b${scheme}:\\S+:(\\d+)/ is the page\n`)?.[1]);
  return port && (tlsPort || !tls) ? { port: Number(port), tlsPort: tlsPort && Number(tlsPort) } : undefined;
};

/**
 * Starts a program, and waits until `find` finds in what it says where it listens.
 *
 * Returns what that is; `ended`, a promise of its exit code and signal; `stop()` and `kill()`, which end it by SIGTERM and
 * by SIGKILL and wait for that.
 */
export async function start(binary, args, find = ports(true)) {
  // Its standard input ends with this process; a program may take that for its own end.
  const child = spawn(binary, args);
  servers.add(child);
  let said = "";
  const ended = new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      servers.delete(child);
      resolve({ code, signal });
    });
  });
  const ready = new Promise((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        said += text;
        const found = find(said);
        if (found) resolve(found);
      });
    }
  });
  const early = ended.then(({ code }) => Promise.reject(new Error(`${binary} ended with ${code}: ${said}`)));
  const place = await within(Promise.race([ready, early]), `the address of ${binary}`);
  const end = (signal) => {
    child.kill(signal);
    return within(ended, `the end of ${binary} by ${signal}`, 2 * PATIENCE);
  };
  return { ...place, ended, stop: () => end("SIGTERM"), kill: () => end("SIGKILL") };
}

/** Runs one check and counts it. */
export async function test(name, fn, patience = CHECK) {
  try {
    await within(Promise.resolve().then(fn), "the check", patience);
    passed += 1;
    console.log(`ok ${name}`);
  } catch (e) {
    failed += 1;
    console.log(`FAILED ${name}: ${e?.stack ?? e}`);
  }
}

/** Ends this process: in success only if checks ran and none failed. */
export function finish() {
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(passed > 0 && failed === 0 ? 0 : 1);
}

/** Fails if it takes too long. */
export function within(promise, what, patience = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${patience / 1000} s`)), patience);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
