// Drives the demo page of `switchboard serve`, and the pages of examples/web, as people do.
//
//     node page.mjs COMMAND [EXAMPLE]      target/debug/switchboard target/debug/examples/web
//
// Run from the root of the repository. Screenshots go to target/test-logs/browser/: look at them.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { brotliCompressSync } from "node:zlib";
import { finish, start, startServer, test, withBrowser, within } from "./harness.mjs";
import { DESKTOP, PHONE, close, faint, open, policy, says, shot, submit, tab } from "./tabs.mjs";

const [command, example] = process.argv.slice(2);

/** Waits for so many rows of the log with this in them, and returns the text of the last. */
async function row(page, dir, text, nth = 1) {
  const rows = page.locator(`#log [data-dir=${dir}]`, { hasText: text });
  await rows.nth(nth - 1).waitFor();
  return rows.nth(nth - 1).innerText();
}

async function connect(page, path = "/echo", protocols = "") {
  await page.fill("#path", path);
  await page.fill("#protocols", protocols);
  await page.click("#connect");
}

async function connected(page) {
  await connect(page);
  await says(page, "state", "1 OPEN");
}

const send = (page, text) => submit(page, "#text", text);

async function enter(page, name, room = "lobby") {
  await page.fill("#chat-name", name);
  await submit(page, "#chat-room", room);
  await says(page, "chat-state", `in ${room}`);
}

const say = (page, line) => submit(page, "#chat-line", line);

const heard = (page, line) => page.locator("#chat-log li", { hasText: line }).first().waitFor();

async function echoes(page) {
  await connected(page);
  await says(page, "extensions", /^permessage-deflate/);
  await says(page, "protocol", "none");
  await says(page, "trip", "none yet");
  await send(page, "größe 🎉");
  await row(page, "received", /text, 12 bytesgröße 🎉/);
  assert.equal(await page.inputValue("#text"), "");
  await says(page, "trip", /^\d+\.\d ms$/);
  await submit(page, "#hex", "00 ff,0x10:ab");
  await row(page, "received", /binary, 4 bytes00 ff 10 ab/);
  const buffer = Buffer.from(Array.from({ length: 100 }, (_, i) => i));
  await page.setInputFiles("#file", { name: "bytes.bin", mimeType: "application/octet-stream", buffer });
  await row(page, "sent", "from bytes.bin");
  assert.equal(await page.inputValue("#file"), "", "the same file can be chosen again");
  await row(page, "received", /binary, 100 bytes00 01 02.* 1f …/);
  await says(page, "buffered", "0");
  await page.fill("#text", "two");
  await page.press("#text", "Shift+Enter");
  await page.type("#text", "lines");
  await page.getByRole("button", { name: "Send text" }).click();
  await row(page, "received", "two\nlines");
  await page.click("#disconnect");
  await row(page, "closed", "code 1005");
  await says(page, "state", "3 CLOSED");
}

async function subprotocols(page) {
  await connect(page, "/echo-shared", "one.v1, two");
  await says(page, "state", "1 OPEN");
  await says(page, "protocol", "one.v1");
  await page.click("#disconnect");
  await says(page, "state", "3 CLOSED");
  // A server that takes none is left by the browser, and not tried again.
  await connect(page, "/echo", "one.v1");
  await row(page, "error", "none of the subprotocols");
  await row(page, "closed", "code 1006");
  await says(page, "state", "3 CLOSED");
  await connect(page, "/echo", "not a token");
  await says(page, "connect-error", /SyntaxError/);
  assert.equal(await page.getAttribute("#protocols", "aria-invalid"), "true");
}

async function closes(page) {
  await connected(page);
  await page.fill("#code", "4001");
  await submit(page, "#reason", "größe");
  await row(page, "closed", "code 4001 (private use), reason “größe”, wasClean true");
  // The server's own close: it is done, and nothing reconnects.
  await page.getByRole("button", { name: "Timed echo" }).click();
  await page.click("#connect");
  await says(page, "state", "1 OPEN");
  await send(page, "exit");
  await row(page, "closed", "code 1000 (normal)");
  await says(page, "state", "3 CLOSED");
  assert.equal(await page.locator("#log [data-dir=waiting]").count(), 0);
}

async function wrongInput(page) {
  await send(page, "hello");
  await says(page, "text-error", "Not connected. Connect first.");
  assert.equal(await page.inputValue("#text"), "hello", "it is not lost");
  for (const [hex, error] of [["", /at least one byte/], ["0g", /“g” in “0g” is not a hex digit/], ["00 1", /two digits/]]) {
    await submit(page, "#hex", hex);
    await says(page, "hex-error", error);
    assert.equal(await page.getAttribute("#hex", "aria-invalid"), "true");
  }
  await page.fill("#hex", "00");
  await says(page, "hex-error", "");
  assert.equal(await page.getAttribute("#hex", "aria-invalid"), null);
  for (const code of ["999", "1001", "5000", "x", ""]) {
    await submit(page, "#code", code);
    await says(page, "code-error", /1000, or from 3000 to 4999/);
    assert.equal(await page.getAttribute("#code", "aria-invalid"), "true");
  }
  await page.fill("#reason", "ä".repeat(62));
  await says(page, "reason-bytes", "124");
  await page.press("#reason", "Enter");
  await says(page, "reason-error", /124 bytes in UTF-8; the most is 123/);
  const [field, error] = [await page.locator("#reason").boundingBox(), await page.locator("#reason-error").boundingBox()];
  assert.ok(error.y >= field.y && error.y < field.y + 100, "it stands below its field");
  await page.click("#chat-enter");
  await says(page, "chat-name-error", /missing/);
  await page.fill("#chat-name", "x".repeat(31));
  await page.click("#chat-enter");
  await says(page, "chat-name-error", /31 characters; the most is 30/);
  await connect(page, "/nothing");
  await row(page, "closed", "code 1006");
  await says(page, "state", "3 CLOSED");
}

async function chats(ada) {
  const bob = await tab(ada.context(), ada.url());
  const eve = await tab(ada.context(), ada.url());
  await enter(ada, "Ada");
  await enter(bob, "Bob <b>");
  await enter(eve, "Eve", "cellar & Co");
  await heard(ada, "* Bob <b> came");
  await says(ada, "chat-here", "here: Ada, Bob <b>");
  await say(ada, "hello <i>Bob</i>");
  await heard(bob, "Ada: hello <i>Bob</i>");
  assert.equal(await ada.inputValue("#chat-line"), "");
  await say(bob, "größe 🎉");
  await heard(ada, "Bob <b>: größe 🎉");
  await say(eve, "quiet here");
  await heard(eve, "Eve: quiet here");
  assert.doesNotMatch(await eve.innerText("#chat-log"), /Ada|Bob/);
  await bob.click("#chat-enter");
  await heard(ada, "* Bob <b> left");
  await says(bob, "chat-state", "left lobby");
  await says(ada, "chat-here", "here: Ada");
  await say(ada, "nobody is here");
  await heard(ada, "nobody is here");
  await ada.close();
  await enter(bob, "Bob");
  await heard(bob, "Ada: nobody is here"); // said while he was away
  assert.equal(await bob.locator("#chat-log li", { hasText: "hello" }).count(), 1); // and what he has seen, once
  assert.deepEqual(bob.problems.concat(eve.problems), []);
}

async function ticks(page) {
  await says(page, "clock", /^\d\d:\d\d:\d\d UTC$/);
  for (let i = 0; i < 2; i++) {
    const before = await page.innerText("#clock");
    await page.waitForFunction((before) => document.getElementById("clock").textContent !== before, before);
  }
  await says(page, "clock-state", "pushed each second");
}

/** The server is killed, comes back, ends in order, comes back. */
async function reconnects(browser) {
  let server = await startServer(command, [], { tls: false });
  const { port } = server;
  const page = await open(browser, `http://127.0.0.1:${port}/`);
  await page.evaluate(() => (ReconnectingWebSocket.maxDelay = 3000)); // a slow start may cost many tries
  await connected(page);
  await enter(page, "Ada");
  await says(page, "clock-state", "pushed each second");
  await server.kill();
  await row(page, "waiting", "code 1006");
  await says(page, "state", "reconnecting");
  await says(page, "wait", /^in \d+ s$/);
  await says(page, "chat-state", "reconnecting");
  await says(page, "clock-state", /^reconnecting in \d+ s$/);
  await heard(page, "You were cut off from lobby. Reconnecting…");
  await send(page, "too early");
  await says(page, "text-error", /Still connecting/);
  await page.screenshot(shot("reconnecting"));
  const delays = [];
  for (const nth of [1, 2]) delays.push(Number((await row(page, "waiting", "reconnecting", nth)).match(/in (\d+\.\d) s/)[1]));
  assert.ok(0.5 <= delays[0] && delays[0] <= 1 && 1 <= delays[1] && delays[1] <= 2, `${delays}`);

  server = await startServer(command, [], { tls: false, port });
  await row(page, "open", "reconnected");
  await says(page, "state", "1 OPEN");
  await says(page, "wait", "");
  await page.press("#text", "Enter");
  await row(page, "received", "too early");
  await submit(page, "#hex", "ab cd");
  await row(page, "received", /binary, 2 bytesab cd/); // its binaryType was kept
  await heard(page, "You are in lobby again.");
  await heard(page, "What was said before is not known any more."); // it is another process
  await says(page, "chat-state", "in lobby");
  await say(page, "back");
  await heard(page, "Ada: back");
  await says(page, "clock-state", "pushed each second");

  await page.evaluate(() => (ReconnectingWebSocket.firstDelay = ReconnectingWebSocket.maxDelay = 60_000));
  await server.stop();
  await row(page, "waiting", "code 1001 (going away)");
  server = await startServer(command, [], { tls: false, port });
  // As if the network were there again: it does not wait for its time.
  await page.evaluate(() => dispatchEvent(new Event("online")));
  await row(page, "open", "reconnected", 2);

  await page.click("#clear"); // it says that of an earlier time
  await server.kill();
  await row(page, "waiting", "code 1006");
  await page.click("#disconnect");
  await says(page, "state", "3 CLOSED");
  await says(page, "wait", "");
  await page.click("#chat-enter");
  await says(page, "chat-state", "left lobby");
  await close(page);
}

/** A page of its own that has the script alone: what it says, and when it stops. */
async function script(page) {
  const events = await page.evaluate(async () => {
    ReconnectingWebSocket.firstDelay = 10;
    const events = [];
    const ended = (ws) => new Promise((resolve) => {
      for (const type of ["open", "message", "waiting", "close"]) {
        ws.addEventListener(type, (e) => events.push([type, e.code ?? e.data ?? ws.readyState]));
      }
      ws.addEventListener("close", resolve);
    });
    const echo = new ReconnectingWebSocket("/echo");
    echo.onopen = () => echo.send("hello");
    echo.onmessage = ({ data, target }) => {
      if (target !== echo || data !== "hello") throw new Error("not a copy of the event");
      echo.close(4000, "enough");
    };
    await ended(echo);
    ReconnectingWebSocket.maxDelay = 25;
    const nothing = new ReconnectingWebSocket(new URL("/nothing", location.href));
    let delays = [];
    nothing.onwaiting = ({ delay }) => {
      delays.push(delay);
      try {
        nothing.send("");
      } catch (e) {
        events.push([e.name, nothing.readyState]);
      }
      if (delays.length === 3) nothing.close();
    };
    await ended(nothing);
    const shares = delays.map((delay, i) => delay / [10, 20, 25][i]);
    const grows = shares.every((share) => share >= 0.5 && share <= 1);
    const differs = new Set(shares).size > 1;
    const codes = [...Array(16).keys()].map((code) => 1000 + code).concat(2999, 3000, 4999);
    const final = codes.filter(ReconnectingWebSocket.isFinal).join();
    return [...events, ["grows", grows], ["differs", differs], ["final", final], ["CLOSED", nothing.readyState === nothing.CLOSED && nothing.CLOSED === 3]];
  });
  const failed = [["waiting", 1006], ["InvalidStateError", 0]];
  assert.deepEqual(events, [
    ["open", 1], ["message", "hello"], ["close", 4000],
    ...failed, ...failed, ...failed, ["close", 1006], ["grows", true], ["differs", true],
    ["final", "1000,1002,1003,1005,1007,1008,1009,1010,3000,4999"], ["CLOSED", true],
  ]);
}

/** By the Tab key one comes to all that can be used, in the order of the page, and back to its start. */
async function keyboard(page) {
  const controls = "a[href], button:enabled, input:enabled, textarea:enabled, [tabindex='0']";
  const all = await page.evaluate((controls) => {
    const shown = [...document.querySelectorAll(controls)].filter((e) => e.checkVisibility());
    return shown.map((e, i) => (e.dataset.tab = String(i)));
  }, controls);
  const reached = [];
  for (let i = 0; i < all.length; i++) {
    await page.keyboard.press("Tab");
    reached.push(await page.evaluate(() => {
      const { outlineStyle } = getComputedStyle(document.activeElement);
      const mark = getComputedStyle(document.activeElement.id === "file" ? document.activeElement.nextElementSibling : document.activeElement);
      if (outlineStyle === "none" && mark.outlineStyle === "none") throw new Error(`${document.activeElement.id} does not show the focus`);
      return document.activeElement.dataset.tab;
    }));
  }
  assert.deepEqual(reached, all);
  for (const id of ["log", "chat-log"]) assert.equal(await page.getAttribute(`#${id}`, "tabindex"), "0", "it can be scrolled");
  await page.focus("#connect");
  await page.keyboard.press("Enter");
  await says(page, "state", "1 OPEN");
  assert.equal(await page.evaluate(() => document.activeElement.id), "disconnect", "the focus is not lost");
  await page.focus("#protocols");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "disconnect");
  await page.keyboard.press("Tab");
  await page.keyboard.type("by keyboard");
  await page.keyboard.press("Enter");
  await row(page, "received", "by keyboard");
  await page.focus("#disconnect");
  await page.keyboard.press("Enter");
  await says(page, "state", "3 CLOSED");
  assert.equal(await page.evaluate(() => document.activeElement.id), "connect", "the focus is not lost");
}

/** What a screen reader is told: each control has a name, and each reference leads somewhere. */
async function names(page) {
  const session = await page.context().newCDPSession(page);
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  const roles = ["button", "textbox", "combobox", "log", "status", "region", "group", "heading", "link"];
  const unnamed = nodes.filter(({ ignored, role, name }) => !ignored && roles.includes(role?.value) && !name?.value);
  // A status is named by what it says.
  assert.deepEqual(unnamed.filter(({ role }) => role.value !== "status").map(({ role, name }) => [role, name]), []);
  assert.ok(nodes.filter(({ role }) => role?.value === "button").length >= 10);
  const broken = await page.evaluate(() =>
    ["aria-describedby", "aria-labelledby", "for", "list"].flatMap((name) =>
      [...document.querySelectorAll(`[${name}]`)].flatMap((e) =>
        e.getAttribute(name).split(" ").filter((id) => !document.getElementById(id)))));
  assert.deepEqual(broken, []);
  // Errors and states are spoken when they come, and are told along with their fields.
  const untold = await page.evaluate(() => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    const silent = all(".error[id]:not([role=alert]), :is(#state, #chat-state):not([role=status])");
    const apart = all(".error[id]").filter(({ id }) =>
      all(`:is(input, textarea)#${id.replace(/-error$/, "")}:not([aria-describedby~="${id}"])`).length);
    const unlabelled = all("input, textarea").filter((e) => !e.labels.length && !e.ariaLabel);
    return [...silent, ...apart, ...unlabelled].map((e) => e.id);
  });
  assert.deepEqual(untold, []);
  assert.equal(await page.getAttribute("html", "lang"), "en");
  const snapshot = await page.locator("body").ariaSnapshot();
  for (const line of ['region "Connection"', 'button "Send text"', 'textbox "Reason"', 'log "Log"', 'region "Chat"', 'region "Clock"']) {
    assert.ok(snapshot.includes(line), `${line}\n${snapshot}`);
  }
}

/** A log that is full lets the oldest go, and follows the newest unless somebody reads. */
async function fills(page) {
  await connected(page);
  await page.evaluate(() => {
    for (let i = 0; i < 400; i++) {
      document.getElementById("text").value = `message ${i}`;
      document.getElementById("text-form").requestSubmit();
    }
  });
  await row(page, "received", "message 399");
  await says(page, "count", /^500 rows, \d+ older let go$/);
  assert.equal(await page.locator("#log li").count(), 500);
  const rest = () => page.evaluate(() => {
    const log = document.getElementById("log");
    return log.scrollHeight - log.clientHeight - log.scrollTop;
  });
  assert.ok((await rest()) < 2, "it does not follow");
  await page.evaluate(() => (document.getElementById("log").scrollTop = 0));
  await page.click("#newest");
  assert.ok((await rest()) < 2);
  await page.locator("#newest").waitFor({ state: "hidden" });
  await page.click("#clear");
  assert.equal(await page.locator("#log li").count(), 0);
  await says(page, "count", "");
}

/** What it looks like, with something in it, in both colours. */
async function looks(browser, url) {
  for (const [size, viewport] of Object.entries({ phone: PHONE, desktop: DESKTOP, wide: { width: 1600, height: 900 } })) {
    const page = await open(browser, url, { viewport, colorScheme: "light", hasTouch: size === "phone" });
    await connected(page);
    await send(page, "hello");
    await row(page, "received", "hello");
    await submit(page, "#hex", "00 ff 10");
    await row(page, "received", "00 ff 10");
    await enter(page, "Ada");
    await say(page, "Is anybody here?");
    await heard(page, "Ada: Is anybody here?");
    await says(page, "clock-state", "pushed each second");
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      // Until the colours have changed, however long that takes.
      await page.evaluate(() => Promise.allSettled(document.getAnimations().map(({ finished }) => finished)));
      assert.deepEqual(await page.evaluate(faint), [], `${size}, ${colorScheme}: contrast (WCAG 2, 1.4.3)`);
      await page.screenshot({ ...shot(`${size}-${colorScheme}`), fullPage: size === "phone" });
    }
    await submit(page, "#hex", "0");
    await submit(page, "#code", "1");
    await page.screenshot({ ...shot(`${size}-errors`), fullPage: size === "phone" });
    await close(page);
  }
}

async function fits(browser, url) {
  for (const viewport of [{ width: 360, height: 740 }, { width: 320, height: 568 }, PHONE, { width: 640, height: 900 }, DESKTOP]) {
    const page = await open(browser, url, { viewport });
    await connected(page);
    await send(page, "x".repeat(1000));
    await row(page, "received", "xxx");
    await enter(page, "W".repeat(30), "M".repeat(30));
    await say(page, "y".repeat(500));
    await heard(page, "yyy");
    await submit(page, "#hex", "x".repeat(100));
    const wide = await page.evaluate(() => {
      const limit = document.documentElement.clientWidth;
      const all = [...document.querySelectorAll("body *")];
      return all.filter((e) => e.getBoundingClientRect().right > limit + 0.5).map((e) => e.outerHTML.slice(0, 80));
    });
    assert.deepEqual(wide, [], `at ${viewport.width}`);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    if (viewport.width === 360) {
      const small = await page.evaluate(() =>
        [...document.querySelectorAll("button, input:not([type=file]), textarea")]
          .filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 44).map((e) => e.id));
      assert.deepEqual(small, [], "large enough for a finger");
      await page.screenshot({ ...shot("narrow"), fullPage: true });
    }
    await close(page);
  }
}

/** The lines of the README, as pasted into the console of the demo page. */
async function readme(page) {
  const [, lines] = readFileSync("README.md", "utf8").match(/```js\n([^`]*\/echo[^`]*)```/);
  const said = [];
  const done = new Promise((resolve) => {
    page.on("console", (message) => {
      said.push(message.text());
      if (message.text().includes("1000")) resolve();
    });
  });
  await page.evaluate(lines);
  await within(done, "the close");
  assert.ok(said.some((text) => text.includes("hello")), `${said}`);
}

async function originals(browser) {
  const server = await start(example, ["127.0.0.1:0"], (said) => {
    const url = said.match(/listening on (\S+)\n/)?.[1];
    return url && { url };
  });
  const { url } = server;
  const rows = (page, name, text) => page.locator("#log tr", { hasText: name }).filter({ hasText: text });
  const send = (page, text) => submit(page, "#data", text);
  const sync = await open(browser, url, { viewport: PHONE });
  await rows(sync, "open", "").waitFor();
  const asynchronous = await tab(sync.context(), new URL("async.html", url).href);
  await rows(asynchronous, "message", /Server wrote at \d+,\d+/).nth(1).waitFor();
  await send(asynchronous, "größe");
  await rows(asynchronous, "message", "Server read größe").waitFor();
  await send(asynchronous, "exit");
  await rows(asynchronous, "close", "1000").waitFor();
  await asynchronous.screenshot(shot("example-async"));
  assert.deepEqual(asynchronous.problems, []);
  await rows(sync, "message", /Server timed-out at \d+,\d+/).first().waitFor({ timeout: 15_000 });
  await send(sync, "größe 🎉");
  await rows(sync, "message", "größe 🎉").waitFor();
  await send(sync, "exit");
  await rows(sync, "close", "1000").waitFor();
  assert.equal(await sync.innerText("#state"), "3");
  await sync.screenshot(shot("example-sync"));
  const problems = sync.problems.filter((text) => !text.includes("status of 404")); // the icon, which it has not
  await sync.context().close();
  await server.kill();
  assert.deepEqual(problems, []);
}

/** The files of a folder: compressed, kept and asked for again, new when they change, in parts; and in no frame. */
async function files(browser) {
  const folder = mkdtempSync(join(tmpdir(), "sb-www-"));
  const write = (name, content) => writeFileSync(join(folder, name), content);
  const script = (text) => {
    const code = `document.title = "${text}"; ${"// long ".repeat(1000)}`;
    write("x.js", code);
    write("x.js.br", brotliCompressSync(code));
  };
  write("index.html", '<!doctype html><link rel="icon" href="data:,"><script src="x.js"></script>');
  write("ten.txt", "0123456789");
  script("first");
  const policy = ["--header", "Content-Security-Policy: default-src 'self'; img-src data:; frame-ancestors 'none'"];
  const server = await startServer(command, ["--www", folder, ...policy], { tls: false });
  try {
    const url = `http://127.0.0.1:${server.port}/`;
    const page = await open(browser, url);
    const received = async () => page.evaluate(() => {
      const { transferSize, encodedBodySize, decodedBodySize } = performance.getEntriesByType("resource")
        .find((entry) => entry.name.endsWith("/x.js"));
      const isSent = transferSize > 300; // which is what it counts for the head alone
      return [document.title, isSent ? "sent" : "kept", isSent && encodedBodySize < decodedBodySize / 10];
    });
    assert.deepEqual(await received(), ["first", "sent", true]);
    await page.reload();
    assert.deepEqual(await received(), ["first", "kept", false]);
    script("second");
    await page.reload();
    assert.deepEqual(await received(), ["second", "sent", true]);
    const part = await page.evaluate(async () => {
      const response = await fetch("ten.txt", { headers: { Range: "bytes=2-4" } });
      return [response.status, await response.text()];
    });
    assert.deepEqual(part, [206, "234"]);
    await close(page);
    const frame = await open(browser, "about:blank");
    const refused = frame.waitForEvent("requestfailed");
    await frame.setContent(`<iframe src="${url}"></iframe>`);
    assert.match((await refused).failure().errorText, /BLOCKED/);
    await frame.context().close();
  } finally {
    await server.stop();
    rmSync(folder, { recursive: true });
  }
}

const server = await startServer(command, ["--compress", "pooled"]);
const url = `http://127.0.0.1:${server.port}/`;
const secure = `https://127.0.0.1:${server.tlsPort}/`;

await withBrowser(async (browser) => {
  const on = (url, fn) => async () => {
    const page = await open(browser, url);
    await fn(page);
    if (!page.isClosed()) await close(page);
  };
  await test("text, bytes and a file come back", on(url, echoes));
  await test("the same over TLS", on(secure, echoes));
  await test("the state shows the subprotocol", on(url, subprotocols));
  await test("it closes with a code", on(url, closes));
  await test("wrong input is told beside its field", on(url, wrongInput));
  await test("a log that is full", on(url, fills));
  await test("a chat with rooms in several tabs", on(url, chats));
  await test("the clock ticks", on(secure, ticks));
  await test("it reconnects, and says so", () => reconnects(browser));
  await test("reconnecting.js by itself", on(url, script));
  await test("its policy is obeyed", on(url, policy));
  await test("all by keyboard", on(url, keyboard));
  await test("all has a name", on(url, names));
  await test("nothing is too wide", () => fits(browser, url));
  await test("screenshots", () => looks(browser, url));
  await test("the lines of the README", on(url, readme));
  await test("the files of a folder", () => files(browser));
  if (example) await test("the pages of the example", () => originals(browser));
});
await server.stop();
finish();
