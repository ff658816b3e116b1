// Drives the console of `switchboard serve --manage` as people do.
//
//     node console.mjs COMMAND [CLUSTERED]      target/debug/switchboard
//
// CLUSTERED is a command with the feature `cluster`; without it, nothing of that is tried.
//
// Run from the root of the repository. Screenshots go to target/test-logs/browser/: look at them.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { finish, start, test, withBrowser, within } from "./harness.mjs";
import { DESKTOP, PHONE, close, faint, open, policy, says, shot, submit, tab } from "./tabs.mjs";

const [command, clustered] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), "sb-console-"));
process.on("exit", () => rmSync(folder, { recursive: true }));
const TOKEN = "the-token-of-these-tests";
const READ = "and-the-one-for-reading";
const REFUSED = /status of (401|410)/; // which Chromium tells of each answer of this kind
const GONE = /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_SOCKET_NOT_CONNECTED/;
const MANY = 5000;

/** A secret in a file. */
function secret(name, text) {
  const file = join(folder, name);
  writeFileSync(file, `${text}\n`, { mode: 0o600 });
  return file;
}

/** A server with a console: where clients connect, and where it is managed. */
async function serve(args = [], { port = 0, manage = 0, binary = command } = {}) {
  const tokens = ["--manage-token-file", secret("all", TOKEN), "--manage-read-token-file", secret("read", READ)];
  const listen = ["--listen", `127.0.0.1:${port}`, "--manage", `127.0.0.1:${manage}`];
  const server = await start(binary, ["serve", ...listen, ...tokens, ...args], (said) => {
    const [port, manage] = ["page", "console"].map((what) => said.match(`http://127.0.0.1:(\\d+)/ is the ${what}\n`)?.[1]);
    const secure = said.match(/(https:\S+) is the console\n/)?.[1];
    const isAll = port && manage && (secure || !args.includes("--manage-tls"));
    return isAll && { port: Number(port), manage: Number(manage), secure };
  });
  return { ...server, url: `http://127.0.0.1:${server.manage}/` };
}

const there = new Set();

/** A client, over a bare socket: of these there can be thousands. */
class Peer {
  messages = [];
  code = 0;
  rest = Buffer.alloc(0);
  waiting = () => {};

  static async to(port, path = "/echo-shared", agent = "peer") {
    const peer = new Peer();
    there.add(peer);
    const socket = (peer.socket = connect(port, "127.0.0.1"));
    const lines = [`GET ${path} HTTP/1.1`, "Host: localhost", "Upgrade: websocket", "Connection: Upgrade",
      "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", `User-Agent: ${agent}`];
    await new Promise((resolve, reject) => {
      socket.once("error", reject);
      socket.once("data", (head) => {
        if (!head.toString("latin1").startsWith("HTTP/1.1 101 ")) return reject(new Error(String(head)));
        peer.take(head.subarray(head.indexOf("\r\n\r\n") + 4));
        resolve();
      });
      socket.write(lines.join("\r\n") + "\r\n\r\n");
    });
    socket.on("error", () => {});
    return peer;
  }
  take(bytes) {
    this.rest = Buffer.concat([this.rest, bytes]);
    if (!this.listens) this.socket.on("data", (more) => this.take(more));
    this.listens = true;
    for (;;) {
      const { rest } = this;
      const long = rest[1] === 126;
      if (rest.length < 2 || (long && rest.length < 4)) return;
      const length = long ? rest.readUInt16BE(2) : rest[1];
      const end = (long ? 4 : 2) + length;
      if (rest.length < end) return;
      this.rest = rest.subarray(end);
      this.frame(rest[0] & 15, rest.subarray(end - length, end));
    }
  }
  frame(kind, payload) {
    if (kind === 9) this.send(10, payload);
    if (kind === 1) this.messages.push(payload.toString());
    if (kind === 8) {
      Object.assign(this, { code: payload.readUInt16BE(0), reason: payload.subarray(2).toString() });
      this.socket.end();
    }
    this.waiting();
  }
  /** Masked with zeros. */
  send(kind, payload) {
    const body = Buffer.from(payload);
    this.socket.write(Buffer.concat([Buffer.from([0x80 | kind, 0x80 | body.length, 0, 0, 0, 0]), body]));
  }
  async until(what, is) {
    const reached = async () => {
      while (!is(this)) await new Promise((resolve) => (this.waiting = resolve));
    };
    await within(reached(), what);
  }
  leave() {
    there.delete(this);
    this.socket.destroy();
  }
}

const gets = (peer, text) => peer.until(`the message ${text}`, ({ messages }) => messages.includes(text));

/** The console, with the token given. */
async function enter(browser, url, options = {}) {
  const { token = TOKEN, ...others } = options;
  const page = await open(browser, url, others);
  await submit(page, "#token", token);
  await says(page, "link-text", "live");
  return page;
}

const rows = (page) => page.locator("#rows tr");
const rowWith = (page, text) => rows(page).filter({ hasText: text });

/** Waits until the table has so many rows. */
const has = (page, count) => page.waitForFunction((count) => document.getElementById("rows").childElementCount === count, count);

/** The texts of a column, from above. */
const column = (page, key) => page.evaluate((key) => {
  const i = [...document.getElementById("head").children].findIndex((head) => head.dataset.key === key);
  return [...document.getElementById("rows").children].map((row) => row.children[i].textContent);
}, key);

async function choose(page, text) {
  await rowWith(page, text).first().click();
  await page.mouse.move(0, 0);
  await page.locator("#one-facts dd").first().waitFor();
}

async function asksForToken(browser, { url }) {
  const page = await open(browser, url);
  await says(page, "link-text", "a token is needed");
  assert.equal(await page.evaluate(() => document.activeElement.id), "token");
  assert.ok(await page.locator("#console").isHidden());
  await page.press("#token", "Enter");
  await says(page, "token-error", "The token is missing.");
  await submit(page, "#token", "not-the-one-that-it-is");
  await says(page, "token-error", "This token is wrong.");
  assert.deepEqual(await page.evaluate(() => [Object.keys(sessionStorage).length, document.cookie]), [0, ""]);
  await page.screenshot(shot("console-token"));
  await submit(page, "#token", `  ${TOKEN} `);
  await says(page, "link-text", "live");
  const kept = await page.evaluate(() => [Object.values(sessionStorage), Object.keys(localStorage), document.cookie, location.href]);
  assert.deepEqual(kept, [[TOKEN], [], "", url]);
  await page.reload();
  await says(page, "link-text", "live");
  const other = await tab(page.context(), url); // another tab does not have it
  await says(other, "link-text", "a token is needed");
  await page.click("#forget");
  await says(page, "link-text", "a token is needed");
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await page.evaluate(() => sessionStorage.setItem("switchboard-token", "one-of-another-time"));
  await page.reload();
  await says(page, "token-error", "This token is wrong.");
  await close(page, REFUSED);
}

async function readOnly(browser, { url, port }) {
  const peer = await Peer.to(port);
  const page = await enter(browser, url, { token: READ });
  await page.locator("#read-only").waitFor();
  await choose(page, "/echo-shared");
  for (const form of ["push", "close", "cast"]) assert.ok(await page.locator(`#${form}-form`).isHidden(), form);
  await page.click("#tab-cast");
  await page.getByText("You may only look").waitFor();
  await close(page);
}

async function pushesAndCloses(browser, { url, port }) {
  const [ada, bob] = [await Peer.to(port, "/echo-shared", "ada's"), await Peer.to(port, "/chat?room=cellar&name=Bob", "bob's")];
  const page = await enter(browser, url);
  await page.fill("#find", "ada's");
  await has(page, 1);
  await choose(page, "/echo-shared");
  assert.match(await page.innerText("#one-facts"), /agent\s+ada's[^]*kind\s+shared/);
  await page.fill("#push-text", "größe");
  await page.press("#push-text", "Shift+Enter");
  await page.type("#push-text", "🎉");
  await page.press("#push-text", "Enter");
  await gets(ada, "größe\n🎉");
  await says(page, "push-done", /^(Sent|Queued)/);
  assert.equal(await page.inputValue("#push-text"), "");
  await page.fill("#code", "999");
  await page.press("#code", "Enter");
  await says(page, "close-error", /^The code: 1000/);
  await submit(page, "#code", "1005");
  await says(page, "close-error", /^The code: 1000/);
  await page.fill("#code", "4001");
  await submit(page, "#reason", "ä".repeat(62));
  await says(page, "close-error", /124 bytes/);
  await submit(page, "#reason", "genug");
  await ada.until("its close", ({ code, reason }) => code === 4001 && reason === "genug");
  await says(page, "close-done", "Closed with 4001.");
  await page.locator("#one-gone").waitFor();
  await submit(page, "#push-text", "too late");
  await says(page, "push-error", /no connection has this ID/);
  await has(page, 0);
  await says(page, "empty", "No connection is like this.");
  assert.equal(bob.code, 0);
  await close(page, REFUSED);
  bob.leave();
}

async function submitCast(page, text) {
  await page.fill("#cast-text", text);
  await page.click("#cast-send");
}

async function broadcasts(browser, { url, port }) {
  const page = await enter(browser, url);
  const ada = await Peer.to(port, "/chat?room=attic&name=Ada");
  const bob = await Peer.to(port, "/chat?room=cellar&name=Bob");
  const eve = await Peer.to(port, "/echo-shared");
  const cast = async (audience, name, text) => {
    await page.selectOption("#audience", audience);
    if (audience) await page.fill("#name", name);
    await submitCast(page, text);
  };
  await page.click("#tab-cast");
  await cast("", "", "to all");
  for (const peer of [ada, bob, eve]) await gets(peer, "to all");
  await says(page, "cast-done", /^[\d, a-z]*\d (sent|queued)/);
  await cast("path", "/chat", "to the chat");
  for (const peer of [ada, bob]) await gets(peer, "to the chat");
  await cast("user", "Bob", "to Bob");
  await gets(bob, "to Bob");
  await cast("path", "/nothing", "x");
  await says(page, "cast-done", "Nobody was there.");
  await cast("path", "", "x");
  await says(page, "cast-error", "The path is missing.");
  // A topic is chosen in its list.
  await page.click("#tab-topics");
  const attic = page.locator("#topic-list li", { hasText: "chat/attic" });
  assert.match(await attic.innerText(), /^chat\/attic\s+1\s+Send/);
  await attic.getByRole("button", { name: "Send" }).click();
  await page.keyboard.type("to the attic");
  await page.click("#cast-send");
  await ada.until("it", ({ messages }) => messages.some((text) => text.endsWith("to the attic"))); // behind its position
  await page.click("#tab-topics");
  await attic.getByRole("button", { name: "chat/attic" }).click();
  await has(page, 1);
  assert.deepEqual(await column(page, "user"), ["Ada"]);
  await says(page, "scope", /^Search and sort are among the only one of this topic/);
  bob.leave();
  ada.leave();
  await has(page, 0);
  await says(page, "empty", "Nobody is there.");
  assert.ok(![...eve.messages, ...bob.messages].some((text) => text.endsWith("attic")));
  assert.deepEqual(eve.messages, ["to all"]);
  await close(page);
}

/** The answer to what was sent takes nothing of what is typed and chosen before it comes. */
async function typesMeanwhile(browser, { url, port }) {
  const [ada, bob] = [await Peer.to(port, "/echo-shared"), await Peer.to(port, "/broadcast")];
  const page = await enter(browser, url);
  const held = (path) => new Promise((resolve) => page.route(path, resolve, { times: 1 }));
  await page.click("#tab-cast");
  const cast = held("**/@broadcast*");
  await submitCast(page, "one");
  const sent = await cast;
  await page.fill("#cast-text", "two");
  await sent.continue();
  await says(page, "cast-done", /sent|queued/);
  assert.equal(await page.inputValue("#cast-text"), "two");
  await page.click("#cast-send");
  for (const peer of [ada, bob]) await gets(peer, "two");
  // The second time ada is said to be gone.
  for (const text of ["three", "four"]) {
    await choose(page, "/echo-shared");
    const push = held("**/@connections/*type=text");
    await submit(page, "#push-text", text);
    const sent = await push;
    await page.press("#push-text", "Enter"); // which does not send it again
    await choose(page, "/broadcast");
    await page.fill("#push-text", `${text} for bob`);
    await (text === "four" ? sent.fulfill({ status: 410, json: { message: "gone" } }) : sent.continue());
    await page.locator("#push-form button:enabled").waitFor();
    assert.equal(await page.innerText("#push-done") + await page.innerText("#push-error"), "", "it is not about bob");
    assert.ok(await page.locator("#one-gone").isHidden());
    await page.press("#push-text", "Enter");
    await gets(bob, `${text} for bob`);
    await says(page, "push-done", /^(Sent|Queued)/);
  }
  assert.deepEqual(ada.messages, ["one", "two", "three"]);
  assert.deepEqual(bob.messages, ["one", "two", "three for bob", "four for bob"]);
  await close(page, REFUSED);
}

/** The table: whom it has, in which order, and on which page. */
async function table(browser, { url, port }) {
  const peers = [];
  for (let i = 0; i < 120; i++) peers.push(await Peer.to(port, `/chat?room=r&name=u${String(i).padStart(3, "0")}`, `agent-${i % 7}`));
  for (let i = 0; i < 9; i++) peers[42].send(1, "hello");
  const page = await enter(browser, url);
  await says(page, "range", "1–50 of 120");
  await page.click("[data-key=user] button");
  const users = (from, to) => Array.from({ length: to - from }, (_, i) => `u${String(from + i).padStart(3, "0")}`);
  assert.deepEqual(await column(page, "user"), users(0, 50));
  assert.equal(await page.getAttribute("[data-key=user]", "aria-sort"), "ascending");
  await page.click("#after");
  await page.click("#after");
  await says(page, "range", "101–120 of 120");
  assert.deepEqual(await column(page, "user"), users(100, 120));
  assert.ok(await page.isDisabled("#after"));
  await page.click("#before");
  assert.deepEqual(await column(page, "user"), users(50, 100));
  await page.click("[data-key=user] button");
  assert.deepEqual(await column(page, "user"), users(70, 120).reverse());
  await page.click("[data-key=in] button");
  await page.mouse.move(0, 0);
  await page.waitForFunction(() => document.querySelector("#rows tr").children[5].textContent === "9");
  assert.equal((await column(page, "user"))[0], "u042");
  await page.fill("#find", "U11 AGENT");
  await says(page, "range", "1–10 of 10");
  await page.fill("#find", "agent-3");
  await says(page, "range", "1–17 of 17");
  await says(page, "scope", /^Search and sort are among all 120 connections/);
  await page.selectOption("#where", "user");
  await page.fill("#find", "u007");
  await says(page, "range", "1–1 of 1");
  await page.fill("#find", "u00");
  await says(page, "empty", "Nobody is there.");
  await page.selectOption("#where", "topic");
  await page.fill("#find", "x".repeat(5000)); // no topic has such a name: whatever is said, it goes on
  await page.selectOption("#where", "path");
  await page.fill("#find", "/chat");
  await says(page, "range", "1–50 of 120");
  await page.selectOption("#where", "");
  await page.fill("#find", "");
  // It follows those who come and go, except under a mouse.
  await page.click("[data-key=age] button");
  assert.equal(await page.getAttribute("[data-key=age]", "aria-sort"), "ascending"); // the newest first
  const late = await Peer.to(port, "/chat?room=r&name=late");
  await rowWith(page, "late").waitFor();
  await rows(page).first().hover();
  late.leave();
  await page.locator("#rows tr[data-gone]", { hasText: "late" }).waitFor();
  await page.mouse.move(0, 0);
  await rowWith(page, "late").waitFor({ state: "detached" });
  peers.forEach((peer) => peer.leave());
  await has(page, 0);
  await close(page, /status of 400/);
}

/** What is drawn, as one number for each plot. */
const drawn = (page) => page.evaluate(() => [...document.querySelectorAll("canvas")].map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.reduce((sum, byte, i) => (sum * 31 + byte * (i + 1)) | 0, 0);
}));

async function plotsMove(browser, { url, port }) {
  const page = await enter(browser, url, { deviceScaleFactor: 2 });
  const values = () => page.locator("[data-plot] b").allInnerTexts();
  await page.waitForFunction(() => document.querySelector("[data-plot=messages] b").textContent !== "–");
  const [before, shown] = [await drawn(page), await values()];
  const peers = await Promise.all([1, 2, 3].map(() => Peer.to(port)));
  const talk = setInterval(() => peers.forEach((peer) => peer.send(1, "hello")), 20);
  await page.waitForFunction((before) => {
    const values = [...document.querySelectorAll("[data-plot] b")].map((b) => b.textContent);
    return values[0] === String(Number(before[0]) + 3) && parseInt(values[1], 10) > 20 && parseInt(values[2], 10) > 20;
  }, shown);
  await page.click("#tab-cast");
  await page.fill("#cast-text", "hello");
  const pushing = setInterval(() => page.evaluate(() => document.getElementById("cast-send").click()).catch(() => {}), 200);
  await page.waitForFunction(() => parseFloat(document.querySelector("[data-plot=pushes] b").textContent) > 0);
  clearInterval(talk);
  clearInterval(pushing);
  const after = await drawn(page);
  assert.ok(before.slice(0, 3).every((number, i) => number !== after[i]), `${before} ${after}`);
  const sharp = await page.evaluate(() => [...document.querySelectorAll("canvas")].every((c) => c.width === Math.round(2 * c.getBoundingClientRect().width)));
  assert.ok(sharp, "as many dots as the screen has");
  // Whoever points at one reads what was at that time.
  const box = await page.locator("[data-plot=connections] canvas").boundingBox();
  await page.mouse.move(box.x + box.width - 2, box.y + 20);
  await page.waitForFunction(() => /^at \d\d:\d\d:\d\d$/.test(document.querySelector("[data-plot=connections] small").textContent));
  await page.screenshot(shot("console-pointed"));
  await page.mouse.move(0, 0);
  await page.waitForFunction(() => /at most$/.test(document.querySelector("[data-plot=connections] small").textContent));
  await close(page);
}

/** The server is killed and comes back; then it comes back with another token. */
async function restarts(browser) {
  let server = await serve();
  const { port, manage, url } = server;
  const page = await enter(browser, url);
  const peer = await Peer.to(port);
  await has(page, 1);
  await choose(page, "/echo-shared");
  await server.kill();
  await says(page, "link-text", "The server does not answer.");
  await says(page, "link-more", /^(again in \d+ s|trying again)$/);
  const ratio = () => page.evaluate(() => {
    const canvas = document.querySelector("canvas"), { width, height } = canvas;
    const context = canvas.getContext("2d");
    const pixel = (x) => [...context.getImageData(Math.round(x), Math.round(height / 2) + 3, 1, 1).data].join();
    return [pixel(width - 2), pixel(2)];
  });
  await page.waitForFunction(() => {
    const canvas = document.querySelector("canvas"), context = canvas.getContext("2d");
    return context.getImageData(canvas.width - 2, Math.round(canvas.height / 2) + 3, 1, 1).data[3] === 255;
  });
  const [gap, empty] = await ratio();
  assert.notEqual(gap, empty, "a gap is shown as one");
  await submit(page, "#push-text", "nobody");
  await says(page, "push-error", "The server does not answer.");
  await page.screenshot(shot("console-lost"));
  server = await serve([], { port, manage });
  await page.evaluate(() => dispatchEvent(new Event("online"))); // it does not wait for its time
  await says(page, "link-text", "live");
  await says(page, "empty", "No client is connected.");
  await page.locator("#one-gone").waitFor();
  await server.stop();
  await says(page, "link-text", "The server does not answer.");
  server = await serve(["--manage-tls", "127.0.0.1:0", "--cert", "certs/server.pem", "--key", "certs/server.key"], { port, manage });
  await says(page, "link-text", "live"); // by itself
  const secure = await enter(browser, server.secure);
  await close(secure);
  await server.stop();
  const other = secret("other", "another-token-than-before");
  server = await start(command, ["serve", "--listen", "127.0.0.1:0", "--manage", `127.0.0.1:${manage}`, "--manage-token-file", other],
    (said) => said.includes("is the console") && {});
  await says(page, "token-error", "This token is wrong.");
  await submit(page, "#token", "another-token-than-before");
  await says(page, "link-text", "live");
  await server.stop();
  peer.leave();
  await close(page, new RegExp(`${REFUSED.source}|${GONE.source}`));
}

/** A server that takes the question and never answers is one that is not there. */
async function hangs(browser, { url }) {
  const page = await open(browser, url);
  await page.route("**/@stats", () => {});
  await submit(page, "#token", TOKEN);
  await says(page, "link-text", "The server does not answer.");
  await page.unroute("**/@stats");
  await says(page, "link-text", "live");
  await close(page);
}

/** Where a page of the table takes longer than anybody waits, it comes in smaller ones. */
async function slowly(browser, { url, port }) {
  for (let i = 0; i < 600; i += 100) await Promise.all(Array.from({ length: 100 }, () => Peer.to(port, "/echo-shared", "W".repeat(250))));
  const page = await open(browser, url);
  const network = await page.context().newCDPSession(page);
  await network.send("Network.enable");
  const speed = (bytes) => network.send("Network.emulateNetworkConditions", { offline: false, latency: 100, downloadThroughput: bytes, uploadThroughput: bytes });
  await speed(20_000); // 600 of these connections are more than 300,000 bytes
  await submit(page, "#token", TOKEN);
  await has(page, 50);
  await speed(-1);
  await says(page, "range", "1–50 of 600");
  await close(page);
}

/** On a Unix socket nobody asks for a token. A browser comes to it as by `ssh -L`. */
async function unixSocket(browser) {
  const path = join(folder, "console.sock");
  const server = await start(command, ["serve", "--listen", "127.0.0.1:0", "--manage", `unix:${path}`], (said) =>
    said.includes("has the console") && { port: said.match(/http:\S+:(\d+)\/ is the page/)?.[1] });
  const sockets = new Set();
  const forward = createServer((socket) => {
    const inner = connect(path);
    for (const [one, other] of [[socket, inner], [inner, socket]]) {
      sockets.add(one);
      one.on("error", () => {}).on("close", () => other.destroy());
      one.pipe(other);
    }
  });
  await new Promise((resolve) => forward.listen(0, "127.0.0.1", resolve));
  const peer = await Peer.to(Number(server.port));
  const page = await open(browser, `http://localhost:${forward.address().port}/`);
  await says(page, "link-text", "live");
  assert.ok(await page.locator("#forget").isHidden());
  await choose(page, "/echo-shared");
  await submit(page, "#push-text", "through a socket");
  await gets(peer, "through a socket");
  await close(page);
  peer.leave();
  forward.close();
  sockets.forEach((socket) => socket.destroy());
  await server.stop();
}

/** Whatever clients call themselves, it is text. */
async function strangers(browser, { url, port }) {
  const attack = "<img src=x onerror=alert(1)>";
  const query = (room, name) => `/chat?${new URLSearchParams({ room, name })}`;
  const peers = [
    await Peer.to(port, query("<script>alert(1)</script>", attack), `"><svg onload=alert(1)><b>`),
    await Peer.to(port, query("a‮b", "‮ eve"), "javascript:alert(1)\t'"),
  ];
  const page = await enter(browser, url);
  let alerts = 0;
  page.on("dialog", (dialog) => { alerts++; dialog.dismiss(); });
  await has(page, 2);
  await choose(page, attack);
  assert.match(await page.innerText("#one-facts"), /"><svg onload=alert\(1\)><b>/);
  await page.click("#tab-topics");
  const topic = page.locator("#topic-list .name", { hasText: "chat/<script>alert(1)</script>" });
  await topic.click();
  await has(page, 1);
  await choose(page, attack);
  await page.locator("#one-facts dd", { hasText: "chat/<script>alert(1)</script>" }).waitFor();
  assert.equal(await page.locator("main :is(script, img, svg, b:not(.now b))").count(), 0);
  assert.equal(alerts, 0);
  await page.screenshot(shot("console-strangers"));
  await close(page);
}

/** A name that a field cannot hold, or that looks like another one, is meant as it is, and shown so that it can be told. */
async function namesAlike(browser, { url, port }) {
  const names = ["a\nb", "ab", " c", "c", "d\u200be", "de", "\u202efg", "\t"];
  const shown = ["a\\u{a}b", "ab", " c", "c", "d\\u{200b}e", "de", "\\u{202e}fg", "\\u{9}"];
  const ask = (path, method = "GET") => fetch(url + path, { method, headers: { Authorization: `Bearer ${TOKEN}` } });
  const peers = await Promise.all(names.map((_, i) => Peer.to(port, "/echo-shared", `peer ${i}`)));
  const { connections } = await (await ask("@connections")).json();
  for (const [i, name] of names.entries()) {
    const { id } = connections.find(({ identity }) => identity.userAgent === `peer ${i}`);
    assert.equal((await ask(`@connections/${id}/topics/${encodeURIComponent(name)}`, "PUT")).status, 204);
  }
  const page = await enter(browser, url);
  for (const [i, text] of shown.entries()) {
    await page.click("#tab-topics");
    await page.waitForFunction((count) => document.getElementById("topic-list").childElementCount === count, names.length);
    const texts = await page.locator("#topic-list .name").evaluateAll((all) => all.map(({ textContent }) => textContent));
    assert.ok(texts.includes(text), `${text} in ${texts}`);
    const item = page.locator("#topic-list li").nth(texts.indexOf(text));
    await item.locator(".name").click();
    await has(page, 1);
    await says(page, "scope", /^Search and sort are among the only one of this topic/);
    await choose(page, "/echo-shared");
    assert.match(await page.innerText("#one-facts"), new RegExp(`agent\\s+peer ${i}\n`));
    await page.click("#tab-topics");
    await item.locator(".send").click();
    await submitCast(page, `to ${i}`);
    await gets(peers[i], `to ${i}`);
  }
  assert.deepEqual(peers.map(({ messages }) => messages), names.map((_, i) => [`to ${i}`]));
  // What is typed instead is meant, and not what was chosen before.
  await page.fill("#name", "ab");
  await submitCast(page, "to ab");
  await gets(peers[1], "to ab");
  await close(page);
}

/** Everything is within the screen, large enough for a finger and can be read, in both colours. */
async function looks(browser, { url, port }) {
  const peers = [];
  for (let i = 0; i < 30; i++) peers.push(await Peer.to(port, i % 3 ? `/chat?room=room${i % 4}&name=user${i}` : "/echo-shared", "W".repeat(250)));
  const sizes = { narrow: { width: 320, height: 568 }, phone: PHONE, tablet: { width: 820, height: 1180 }, desktop: DESKTOP };
  for (const [size, viewport] of Object.entries(sizes)) {
    const isPhone = viewport.width < 500;
    const page = await enter(browser, url, { viewport, hasTouch: isPhone, isMobile: isPhone, colorScheme: "light" });
    await has(page, viewport.width < 960 ? 20 : 30);
    const fits = async (what) => {
      const wide = await page.evaluate(() => {
        const limit = document.documentElement.clientWidth;
        return [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > limit + 0.5)
          .map((e) => e.outerHTML.slice(0, 80));
      });
      assert.deepEqual(wide, [], `${what} at ${viewport.width}`);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
      if (!isPhone) return;
      const small = await page.evaluate(() => [...document.querySelectorAll("button, input, select, textarea")]
        .filter((e) => e.checkVisibility() && !e.closest("td, th, li") && e.getBoundingClientRect().height < 43.5).map((e) => e.id));
      assert.deepEqual(small, [], `${what}: large enough for a finger`);
    };
    await fits("the table");
    if (isPhone) {
      await page.screenshot(shot(`console-${size}`));
      await page.selectOption("#sort", "user 1");
      await page.tap("#tab-cast");
      await fits("broadcast");
      await page.tap("#lower");
      assert.ok(await page.locator("#cast").isHidden());
    }
    await rowWith(page, "user1").first().click();
    await page.locator("#one-facts dd").first().waitFor();
    await fits("a connection");
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await page.evaluate(() => Promise.allSettled(document.getAnimations().map(({ finished }) => finished)));
      assert.deepEqual(await page.evaluate(faint), [], `${size}, ${colorScheme}: contrast (WCAG 2, 1.4.3)`);
      await page.screenshot(shot(`console-${size}-${colorScheme}`));
    }
    const paper = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(paper, "rgb(20, 24, 26)", "dark");
    if (isPhone) {
      await page.keyboard.press("Escape");
      assert.ok(await page.locator("#one").isHidden(), "the sheet is lowered");
    }
    await close(page);
  }
}

/** By the keyboard one comes to all, sees where one is, and all has a name. */
async function keyboard(browser, { url, port }) {
  const peer = await Peer.to(port);
  const page = await enter(browser, url);
  await has(page, 1);
  const controls = "button:enabled, input:enabled, select:enabled, textarea:enabled, [tabindex='0']";
  for (const name of ["topics", "cast", "one"]) {
    await page.focus("#tab-topics");
    if (name !== "topics") await page.click(`#tab-${name}`);
    if (name === "one") await choose(page, "/echo-shared");
    const all = await page.evaluate((controls) => [...document.querySelectorAll(controls)]
      .filter((e) => e.checkVisibility() && e.tabIndex === 0).map((e, i) => (e.dataset.tab = String(i))), controls);
    await page.focus("[data-tab='0']");
    const reached = ["0"];
    for (let i = 1; i < all.length; i++) {
      await page.keyboard.press("Tab");
      reached.push(await page.evaluate(() => {
        if (getComputedStyle(document.activeElement).outlineStyle === "none") throw new Error(`${document.activeElement.outerHTML.slice(0, 80)} does not show the focus`);
        return document.activeElement.dataset.tab;
      }));
    }
    assert.deepEqual(reached, all, name);
  }
  await page.focus("#tab-one");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.evaluate(() => document.activeElement.id), "tab-topics");
  assert.ok(await page.locator("#topics").isVisible());
  await page.locator("#rows button").focus();
  await page.keyboard.press("Enter");
  await page.locator("#one").waitFor();
  const session = await page.context().newCDPSession(page);
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  const roles = ["button", "textbox", "searchbox", "combobox", "tab", "tabpanel", "region", "heading", "image", "columnheader"];
  const unnamed = nodes.filter(({ ignored, role, name }) => !ignored && roles.includes(role?.value) && !name?.value);
  assert.deepEqual(unnamed.map(({ role }) => role.value), []);
  await close(page);
}

/** With thousands of connections it does not stutter, and its table stays small. */
async function thousands(browser, { url, port }) {
  const peers = [];
  for (let i = 0; i < MANY; i += 100) {
    const path = (n) => (n % 3 ? `/chat?room=room${n % 50}&name=user${n}` : "/echo-shared");
    peers.push(...(await Promise.all(Array.from({ length: 100 }, (_, n) => Peer.to(port, path(i + n), `agent ${(i + n) % 9}`)))));
  }
  const page = await enter(browser, url);
  await says(page, "range", `1–50 of ${MANY.toLocaleString("en")}`);
  await says(page, "scope", /^Search and sort are among all 5,000 connections, as of/);
  const talk = setInterval(() => peers.slice(0, 60).forEach((peer) => peer.send(1, "hello")), 100);
  const measure = () => page.evaluate(async () => {
    const frames = [];
    let last = performance.now();
    const begun = last;
    const fill = document.getElementById("find");
    while (last - begun < 6000) {
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      frames.push(now - last);
      last = now;
      if (frames.length % 60 === 0) {
        fill.value = fill.value ? "" : "user4 agent";
        fill.dispatchEvent(new Event("input"));
      }
    }
    return frames.sort((a, b) => a - b);
  });
  // Generous: what else runs on the machine is not the page's fault. All rows in the page would take seconds, each time.
  let isSmooth = false;
  for (let tries = 0; tries < 3 && !isSmooth; tries++) {
    const frames = await measure();
    const [half, most, worst] = [frames[frames.length >> 1], frames[Math.floor(frames.length * 0.98)], frames.at(-1)];
    console.log(`   ${frames.length} frames: half within ${half.toFixed(1)} ms, 98 % within ${most.toFixed(1)}, all within ${worst.toFixed(1)}`);
    isSmooth = half < 50 && most < 250 && worst < 2000;
  }
  clearInterval(talk);
  assert.ok(isSmooth, "it stutters");
  await page.fill("#find", "user4999");
  await says(page, "range", "1–1 of 1");
  await page.fill("#find", "");
  const nodes = await page.evaluate(() => document.querySelectorAll("*").length);
  assert.ok(nodes < 1500, `${nodes} elements`);
  await page.screenshot(shot("console-thousands"));
  await close(page);
}

/** A port that nobody has now. */
async function freePort() {
  const probe = createServer();
  await new Promise((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

async function cluster(browser) {
  const port = String(await freePort());
  const options = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder];
  const redis = await start("redis-server", options, (said) => said.includes("Ready to accept") && { port });
  const key = secret("session-key", "the same 32 secret bytes or more on all nodes");
  const node = (number) => serve(
    ["--cluster", `redis://127.0.0.1:${port}`, "--session-key-file", key, "--node", number, "--cluster-lease", "6"],
    { binary: clustered },
  );
  const nodes = [await node("1"), await node("2")];
  const [here, there] = [await Peer.to(nodes[0].port), await Peer.to(nodes[1].port, "/chat?room=x&name=Zoë")];
  const page = await enter(browser, nodes[0].url);
  await page.getByText(/node 1 of 2/).waitFor();
  await has(page, 2);
  await page.locator("#head button", { hasText: "Node" }).click();
  assert.deepEqual(await column(page, "node"), ["1", "2"]);
  await page.click("#tab-nodes");
  await says(page, "node-note", /^2 connections on 2 nodes\. .* of node 1 alone/);
  const told = (await page.locator("#node-rows tr").allInnerTexts()).map((text) => text.split("\t").slice(0, 2));
  assert.deepEqual(told, [["1", "1"], ["2", "1"]]);
  assert.deepEqual(await page.evaluate(faint), []);
  await page.screenshot(shot("console-nodes"));
  await choose(page, "/chat");
  assert.match(await page.innerText("#one-facts"), /node\s+2/);
  await page.fill("#push-text", "from node 1");
  await page.press("#push-text", "Enter");
  await gets(there, "from node 1");
  await says(page, "push-done", "Forwarded to its node.");
  await page.click("#tab-cast");
  await page.fill("#cast-text", "to all");
  await page.click("#cast-send");
  await Promise.all([gets(here, "to all"), gets(there, "to all")]);
  await says(page, "cast-done", /^1 (sent|queued), forwarded to 1 node\.$/);
  await page.setViewportSize(PHONE);
  await page.click("#tab-nodes");
  await page.screenshot(shot("console-nodes-phone"));
  await page.setViewportSize(DESKTOP);
  await redis.kill();
  await page.getByText(/Redis is not reached$/).first().waitFor();
  await says(page, "node-error", /^Redis is not reached/);
  await says(page, "scope", /on this node, as of/);
  await has(page, 1);
  await page.screenshot(shot("console-nodes-cut-off"));
  for (const peer of [here, there]) peer.leave();
  await Promise.all(nodes.map((node) => node.stop()));
  await close(page, new RegExp(`${GONE.source}|status of 503`)); // there is no list of all without Redis
}

const server = await serve(["--max-connections", "10000"]);

await withBrowser(async (browser) => {
  const on = (fn) => async () => {
    try {
      await fn(browser, server);
    } finally {
      there.forEach((peer) => peer.leave());
    }
  };
  await test("it asks for a token, which the tab keeps", on(asksForToken));
  await test("who may only read cannot do more", on(readOnly));
  await test("a push arrives, and a close closes", on(pushesAndCloses));
  await test("broadcasts and topics", on(broadcasts));
  await test("what is typed meanwhile stays", on(typesMeanwhile));
  await test("it searches, sorts and turns pages", on(table));
  await test("plots move", on(plotsMove));
  await test("the server restarts", () => restarts(browser));
  await test("the server hangs", on(hangs));
  await test("a slow network", on(slowly));
  await test("a Unix socket", () => unixSocket(browser));
  await test("what strangers have made up is text", on(strangers));
  await test("names that look alike", on(namesAlike));
  await test("sizes, colours and contrast", on(looks));
  await test("all by keyboard, and all has a name", on(keyboard));
  await test("its policy is obeyed", async () => {
    const page = await open(browser, server.url);
    await says(page, "link-text", "a token is needed");
    await policy(page);
    await close(page);
  });
  await test("thousands of connections", on(thousands));
  if (clustered) await test("the nodes of a cluster", () => cluster(browser));
});
await server.stop();
finish();
