// Checks a running `switchboard` command with the npm package ws: a client that nobody here wrote.
//
//     node node_client.mjs WS_URL WSS_URL CA_FILE      ws://127.0.0.1:8080 wss://127.0.0.1:8443 certs/ca.pem
//
// The command must run with its default limits. Exit code 1, with a text that says why, at the first check that fails.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import WebSocket from "ws";

const PATIENCE = 10_000; // ms, for each wait
const WHOLE_RUN = 120_000; // ms
const LIMIT = 1 << 20; // the default of --max-message-size
const MANY = 200;
const EXAMPLE = "/csp/user/MyApp.MyWebSocketServer.cls";

/** The URL and the CA of one of the two servers. */
class Server {
  constructor(url, ca) {
    this.url = url.replace(/\/$/, "");
    this.ca = ca;
  }

  /** A connection; it offers permessage-deflate, as this library always does. */
  async connect(path = "/echo", { protocols = [], ...options } = {}) {
    const client = new Client(new WebSocket(this.url + path, protocols, { ca: this.ca, ...options }));
    await within(client.opened, `opening ${path}`);
    return client;
  }

  /** The status and the body of the answer that refuses to open a WebSocket. */
  refusal(path, options) {
    const ws = new WebSocket(this.url + path, { ca: this.ca, ...options });
    const answer = new Promise((resolve, reject) => {
      ws.on("open", () => reject(new Error(`${path} was opened`)));
      ws.on("error", reject);
      ws.on("unexpected-response", (_, response) => {
        let body = "";
        response.on("data", (data) => (body += data));
        response.on("end", () => resolve({ status: response.statusCode, body }));
      });
    });
    return within(answer, `the answer to ${path}`);
  }
}

/** A connection whose messages and end can be awaited. */
class Client {
  #messages = [];
  #waiting = [];

  constructor(ws) {
    this.ws = ws;
    this.opened = new Promise((resolve, reject) => {
      ws.once("open", resolve);
      ws.once("error", reject);
    });
    this.closed = new Promise((resolve) => {
      ws.once("close", (code, reason) => resolve({ code, reason: reason.toString() }));
    });
    ws.once("upgrade", (response) => (this.headers = response.headers));
    ws.on("message", (data, isBinary) => {
      const message = isBinary ? data : data.toString();
      const waiting = this.#waiting.shift();
      waiting ? waiting(message) : this.#messages.push(message);
    });
  }

  /** The next message: a string, or a Buffer if it is binary. */
  next(patience) {
    if (this.#messages.length > 0) return this.#messages.shift();
    return within(new Promise((resolve) => this.#waiting.push(resolve)), "a message", patience);
  }

  async echo(message) {
    this.ws.send(message);
    same(await this.next(), message, "the echo");
  }

  pong(payload) {
    const pong = new Promise((resolve) => this.ws.once("pong", resolve));
    this.ws.ping(payload);
    return within(pong, "a pong");
  }

  async close(...args) {
    this.ws.close(...args);
    return await within(this.closed, "the end");
  }

  /** The server has to end it like this. */
  async isClosed(code, reason = "") {
    const end = await within(this.closed, "the end");
    assert.equal(end.code, code, `the close code; the reason was ${JSON.stringify(end.reason)}`);
    assert.ok(end.reason.includes(reason), `the close reason: ${end.reason}`);
    assert.equal(this.#messages.length, 0, "a message instead of a close frame");
  }
}

/** Fails if it takes too long. */
function within(promise, what, patience = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${patience / 1000} s`)), patience);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** As assert.deepEqual, but a megabyte is not printed. */
function same(got, wanted, what) {
  const kind = (value) => (Buffer.isBuffer(value) ? "binary" : "text");
  const equal = Buffer.isBuffer(got) && Buffer.isBuffer(wanted) ? got.equals(wanted) : got === wanted;
  const shorten = (value) => `${kind(value)} of ${value.length}: ${value.toString().slice(0, 100)}`;
  assert.ok(equal, `${what} was ${shorten(got)}, not ${shorten(wanted)}`);
}

// Each check runs over ws:// and over wss://.
const checks = {
  async "text comes back"(server) {
    const client = await server.connect();
    for (const text of ["hello", "", "größe", "beyond the BMP: \u{1F600} \u{10348} \u{10FFFF}", "\0"]) {
      await client.echo(text);
    }
    await client.close();
  },

  async "binary comes back"(server) {
    const client = await server.connect();
    for (const data of [randomBytes(256), Buffer.alloc(0), Buffer.alloc(1)]) {
      await client.echo(data);
    }
    await client.close();
  },

  async "messages up to the limit come back"(server) {
    const client = await server.connect();
    for (const size of [125, 126, 65535, 65536, LIMIT]) {
      await client.echo("x".repeat(size));
      await client.echo(randomBytes(size));
    }
    await client.echo("\u{1F600}".repeat(LIMIT / 4));
    await client.close();
  },

  async "fragments come back as one message"(server) {
    const client = await server.connect();
    const smile = Buffer.from("\u{1F600}");
    for (const piece of [smile.subarray(0, 1), smile.subarray(1, 3)]) {
      client.ws.send(piece, { binary: false, fin: false });
    }
    await client.pong("between");
    client.ws.send(smile.subarray(3), { fin: true });
    same(await client.next(), "\u{1F600}", "a character in three fragments");
    for (let i = 0; i < 1000; i++) client.ws.send(Buffer.alloc(1), { fin: false });
    client.ws.send(Buffer.alloc(0), { fin: true });
    same(await client.next(), Buffer.alloc(1000), "the echo");
    await client.close();
  },

  async "a burst comes back in order"(server) {
    const client = await server.connect();
    for (let i = 0; i < 1000; i++) client.ws.send(String(i));
    for (let i = 0; i < 1000; i++) same(await client.next(), String(i), "the echo");
    await client.close();
  },

  async "pings are answered"(server) {
    for (const path of ["/echo", EXAMPLE]) {
      const client = await server.connect(path);
      for (const payload of [Buffer.alloc(0), Buffer.from("payload"), randomBytes(125)]) {
        same(await client.pong(payload), payload, "the pong");
      }
      client.ws.pong("nobody asked");
      await client.echo("still here");
      await client.close();
    }
  },

  async "no extension is chosen"(server) {
    const client = await server.connect();
    assert.equal(client.ws.extensions, "");
    assert.equal(client.headers["sec-websocket-extensions"], undefined);
    await client.close();
  },

  // RFC 6455, section 4.2.2: the server may choose none, and this library, as a browser, then gives up.
  async "no subprotocol is chosen"(server) {
    const opening = server.connect("/echo", { protocols: ["chat", "superchat"] });
    await assert.rejects(opening, /Server sent no subprotocol/);
  },

  async "close code and reason are echoed"(server) {
    const ends = [[1000, ""], [1000, "done"], [3000, "a reason"], [4999, "ü".repeat(61)]];
    for (const [code, reason] of ends) {
      const client = await server.connect();
      assert.deepEqual(await client.close(code, reason), { code, reason });
    }
    const client = await server.connect();
    assert.deepEqual(await client.close(), { code: 1005, reason: "" });
  },

  async "a message too big is 1009 and says so"(server) {
    for (const message of [Buffer.alloc(LIMIT + 1), "x".repeat(LIMIT + 1), Buffer.alloc(8 * LIMIT)]) {
      const client = await server.connect();
      client.ws.send(message);
      await client.isClosed(1009, `${LIMIT} bytes`);
    }
    const client = await server.connect();
    for (let i = 0; i < 3; i++) client.ws.send(Buffer.alloc(LIMIT / 2), { fin: false });
    await client.isClosed(1009, `${LIMIT} bytes`);
  },

  async "invalid frames end the connection"(server) {
    const invalid = [
      [1002, "without a mask", (ws) => ws.send("x", { mask: false })],
      [1002, "a reserved opcode", (ws) => ws._socket.write(Buffer.from("838000000000", "hex"))],
      [1002, "a continuation of nothing", (ws) => ws._socket.write(Buffer.from("808000000000", "hex"))],
      [1007, "text that is not UTF-8", (ws) => ws.send(Buffer.from([0xc3, 0x28]), { binary: false })],
      [1007, "half a character", (ws) => ws.send(Buffer.from([0xc3]), { binary: false })],
    ];
    for (const [code, what, send] of invalid) {
      const client = await server.connect();
      send(client.ws);
      await client.isClosed(code).catch((e) => assert.fail(`${what}: ${e.message}`));
    }
  },

  async "clients that vanish hurt nobody"(server) {
    const stays = await server.connect();
    for (let i = 0; i < 20; i++) {
      const client = await server.connect();
      client.ws.send("half a mess", { fin: false });
      client.ws.terminate();
      await within(client.closed, "the end");
    }
    await stays.echo("still here");
    await stays.close();
  },

  async "the example echoes"(server) {
    const client = await server.connect(EXAMPLE);
    for (const message of ["hello", Buffer.from([0, 255]), "", "exit, but not quite"]) {
      await client.echo(message);
    }
    await client.close();
  },

  async "the example ends at exit"(server) {
    const client = await server.connect(EXAMPLE);
    await client.echo("hello");
    client.ws.send("exit");
    await client.isClosed(1000);
  },

  async "a wrong path is 404"(server) {
    for (const path of ["/nothing", "/echo/", "/", "/csp/user/"]) {
      const { status, body } = await server.refusal(path);
      assert.equal(status, 404);
      assert.match(body, /no WebSocket at this path/);
    }
  },

  async "a foreign origin is 403"(server) {
    for (const origin of ["http://evil.example", "https://evil.example", "null"]) {
      const { status, body } = await server.refusal("/echo", { origin });
      assert.equal(status, 403);
      assert.match(body, /Origin/);
    }
    const client = await server.connect("/echo", { origin: server.url.replace(/^ws/, "http") });
    await client.echo("a page of the same host");
    await client.close();
  },

  async "an old version is 426"(server) {
    const { status } = await server.refusal("/echo", { protocolVersion: 8 });
    assert.equal(status, 426);
  },

  async "many connections at once"(server) {
    const clients = await Promise.all(Array.from({ length: MANY }, () => server.connect()));
    await Promise.all(clients.map((client, i) => client.echo(`I am ${i}`)));
    const ends = await Promise.all(clients.map((client) => client.close(1000)));
    assert.ok(ends.every(({ code }) => code === 1000), "the close codes");
  },
};

/** After 10 s; run beside the checks, and not one of them. */
async function theExampleSaysThatNothingCame(server) {
  const begun = Date.now();
  const client = await server.connect(EXAMPLE);
  const text = await client.next(10_000 + PATIENCE);
  const silence = Date.now() - begun;
  assert.match(text, /^Server timed-out at /);
  assert.ok(9_500 < silence && silence < 10_000 + PATIENCE, `it came after ${silence} ms`);
  await client.echo("still here");
  client.ws.send("exit");
  await client.isClosed(1000);
}

async function run(name, server, check) {
  try {
    await check(server);
  } catch (e) {
    fail(`${name}, over ${server.url.split(":")[0]}: ${e.stack ?? e}`);
  }
}

function fail(what) {
  console.log(`node client: FAILED: ${what}`);
  process.exit(1);
}

const [wsUrl, wssUrl, caFile] = process.argv.slice(2);
if (caFile === undefined) {
  console.log("usage: node node_client.mjs WS_URL WSS_URL CA_FILE");
  process.exit(2);
}
setTimeout(() => fail(`not done within ${WHOLE_RUN / 1000} s`), WHOLE_RUN).unref();
const ca = readFileSync(caFile);
const servers = [new Server(wsUrl, ca), new Server(wssUrl, ca)];
const silence = "the example says that nothing came";
const silences = servers.map((server) => run(silence, server, theExampleSaysThatNothingCame));
for (const [name, check] of Object.entries(checks)) {
  for (const server of servers) await run(name, server, check);
}
await Promise.all(silences);
console.log(`node client: ${(Object.keys(checks).length + 1) * servers.length} checks passed`);
