// Checks our server with the JavaScript client: pages in Chromium, over ws:// and wss://, with synchronous and with
// shared connections. What a page's own code sees is compared with what the server has seen.
//
//     node protocol.mjs SWITCHBOARD BROWSER_SERVER      the built command, and the built server.rs of this folder
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { PATIENCE, finish, start, startServer, test, withBrowser } from "./harness.mjs";

const LIMIT = 1 << 20; // the default of --max-message-size
// What the kernel may come to keep of one connection, in bytes: the most of both buffers (tcp(7)).
const KERNEL = ["rmem", "wmem"]
  .map((name) => Number(readFileSync(`/proc/sys/net/ipv4/tcp_${name}`, "utf8").trim().split(/\s+/)[2]))
  .reduce((sum, most) => sum + most);
const MANY = 50;

/** Runs in each page before anything else: `Client` is what the checks use there. */
function inPage(patience) {
  const within = (promise, what) => {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${what}: not within ${patience / 1000} s`)), patience);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
  };

  /** A socket whose messages and end can be awaited. */
  window.Client = class {
    #messages = [];
    #waiting = [];
    events = []; // but for messages: each with the readyState that it came with

    // As the page of the original finds its server, if there is no `base`.
    constructor(path, protocols, base = (location.protocol == "https:" ? "wss:" : "ws:") + "//" + location.host) {
      const ws = protocols ? new WebSocket(base + path, protocols) : new WebSocket(base + path);
      this.ws = ws;
      this.opened = new Promise((resolve) => {
        ws.onopen = () => resolve(this.events.push(`open ${ws.readyState}`));
      });
      ws.onerror = () => this.events.push(`error ${ws.readyState}`);
      ws.onmessage = ({ data }) => {
        const waiting = this.#waiting.shift();
        waiting ? waiting(data) : this.#messages.push(data);
      };
      this.closed = new Promise((resolve) => {
        ws.onclose = ({ code, reason, wasClean }) => {
          this.events.push(`close ${ws.readyState}`);
          const [unsent, unread] = [ws.bufferedAmount, this.#messages.length];
          resolve({ code, reason, wasClean, events: this.events.join(", "), unsent, unread });
        };
      });
    }

    static async open(path, protocols) {
      const client = new Client(path, protocols);
      const over = client.closed.then(({ code }) => Promise.reject(new Error(`${path} was closed with ${code}`)));
      await within(Promise.race([client.opened, over]), `opening ${path}`);
      return client;
    }

    next() {
      if (this.#messages.length > 0) return this.#messages.shift();
      return within(new Promise((resolve) => this.#waiting.push(resolve)), "a message");
    }

    ask(message) {
      this.ws.send(message);
      return this.next();
    }

    /** Closes it if there are arguments, or an empty list of them, and waits for the end. */
    end(args) {
      if (args) this.ws.close(...args);
      return within(this.closed, "the end");
    }
  };

  /** Instead of each socket one that connects to nothing, and gets what it is given. */
  window.fakeSockets = () => {
    const sockets = [];
    const real = window.WebSocket;
    window.WebSocket = class {
      static CONNECTING = 0;
      constructor(url) {
        Object.assign(this, { url: String(url), readyState: 0, binaryType: "blob" });
        sockets.push(this);
      }
      close() {}
      lose() {
        this.readyState = 3;
        this.onclose(new CloseEvent("close", { code: 1006 }));
      }
      give(data) {
        this.onmessage(new MessageEvent("message", { data }));
      }
    };
    return { sockets, end: () => { window.WebSocket = real; } };
  };
}

const OPENED = "open 1, close 3"; // the events of a connection without an error
const REFUSED = "error 3, close 3";

/** What `Client.end` gives after a closing handshake. Chromium calls none clean before which it had not sent all. */
const clean = (code, reason = "") => ({ code, reason, wasClean: true, events: OPENED, unsent: 0, unread: 0 });
/** And without one. */
const unclean = (events) => ({ code: 1006, reason: "", wasClean: false, events, unsent: 0, unread: 0 });

/** How a page went that got messages: what it has not read makes a reset, which may overtake its close frame. */
const GONE = /^(1001 Client|1006 Network) /;

/** A page in a browser's tab. */
class Tab {
  static async open(context, base) {
    const tab = new Tab();
    tab.page = await context.newPage();
    tab.base = base;
    await tab.page.addInitScript(inPage, PATIENCE);
    await tab.load();
    return tab;
  }

  /** Loads the page anew: what was there before ends, its sockets too. */
  async load() {
    this.place = this.page; // or one of its frames
    await this.page.goto(this.base);
  }

  /** Calls `fn` with one more tab, which lives no longer. */
  static async use(context, base, fn) {
    const tab = await Tab.open(context, base);
    try {
      return await fn(tab);
    } finally {
      await tab.page.close();
    }
  }

  /** Runs `fn` in the page. */
  run(fn, arg) {
    return this.place.evaluate(fn, arg);
  }

  /** A request that is none of the page's. */
  async get(path) {
    const response = await this.page.request.get(this.base + path);
    const text = await response.text();
    assert.equal(response.status(), 200, `${path}: ${text}`);
    return text;
  }

  /** How a connection ended for the test server: `CODE WHO_BEGAN MESSAGES TEXT`. */
  ended(tag) {
    return this.get(`/ended/${tag}`);
  }

  /** Runs `fn` in the page; the browser has to say this on its console meanwhile, where alone it says why it failed. */
  async saying(text, fn, arg) {
    const said = this.page.waitForEvent("console", { predicate: (m) => m.text().includes(text), timeout: PATIENCE });
    return (await Promise.all([this.run(fn, arg), said]))[0];
  }
}

const wsOf = (base) => base.replace("http", "ws");

// On the page of the test server. `at(route)` is [path, tag], of a synchronous connection or of a shared one.
const checks = {
  async "readyState goes from 0 to 3"({ tab, at }) {
    const [path] = at("echo");
    const seen = await tab.run(async (path) => {
      const client = new Client(path);
      const states = [client.ws.readyState];
      let early;
      try {
        client.ws.send("too early");
      } catch (e) {
        early = e.name;
      }
      await client.opened;
      states.push(client.ws.readyState);
      client.ws.close();
      states.push(client.ws.readyState);
      const { events } = await client.end();
      states.push(client.ws.readyState);
      const { url, protocol, extensions } = client.ws;
      return { states, early, events, url, protocol, extensions };
    }, path);
    assert.deepEqual(seen, {
      states: [0, 1, 2, 3],
      early: "InvalidStateError",
      events: OPENED,
      url: wsOf(tab.base) + path,
      protocol: "",
      extensions: "",
    });
  },

  async "bufferedAmount rises while nobody reads, and falls when somebody does"({ tab, at }) {
    const [path, tag] = at("slow");
    const count = Math.ceil(KERNEL / LIMIT) + 12; // more than what the kernel, the server and the browser's pipe keep
    const { rising, falling } = await tab.run(async ([path, tag, count]) => {
      const client = await Client.open(path);
      const rising = [];
      for (let i = 0; i < count; i++) {
        client.ws.send(new ArrayBuffer(1 << 20));
        rising.push(client.ws.bufferedAmount);
      }
      // What fits on the way goes; the rest stays with the browser as long as nobody reads.
      for (let before = Infinity; client.ws.bufferedAmount < before; await new Promise((resolve) => setTimeout(resolve, 500))) {
        before = client.ws.bufferedAmount;
      }
      const falling = [];
      for (let i = 0; i < count; i++) {
        await fetch(`/permit/${tag}`);
        const answer = await client.next();
        if (answer !== "took 1048576") throw new Error(answer);
        falling.push(client.ws.bufferedAmount);
      }
      await client.end([]);
      return { rising, falling };
    }, [path, tag, count]);
    assert.deepEqual(rising, Array.from({ length: count }, (_, i) => (i + 1) * LIMIT));
    assert.ok(falling[0] > 0, `one message taken, and nothing waits in the browser: ${falling}`);
    assert.ok(falling.every((amount, i) => i === 0 || amount <= falling[i - 1]), `it rose: ${falling}`);
    assert.equal(falling.at(-1), 0);
    assert.match(await tab.ended(tag), new RegExp(`^1005 Client ${count} `));
  },

  async "the server chooses the subprotocol"({ tab, at }) {
    const offers = [
      [undefined, ""],
      ["v1.test", "v1.test"],
      [["v1.test", "v2.test"], "v2.test"],
      [["other", "v1.test"], "v1.test"],
    ];
    for (const [offer, chosen] of offers) {
      const [path] = at("subprotocol");
      const seen = await tab.run(async ([path, offer]) => {
        const client = await Client.open(path, offer ?? undefined);
        const said = await client.next();
        await client.end([]);
        return [client.ws.protocol, said];
      }, [path, offer]);
      assert.deepEqual(seen, [chosen, chosen || "none"], `${offer} was offered`);
    }
  },

  async "a browser that offers subprotocols in vain gives up"({ tab, at }) {
    const [path, tag] = at("echo");
    const end = await tab.saying("Sec-WebSocket-Protocol", (path) => new Client(path, ["other"]).end(), path);
    assert.deepEqual(end, unclean(REFUSED));
    assert.match(await tab.ended(tag), /^1006 Network 0 /);
  },

  async "text and binary data arrive as what they were sent"({ tab, at }) {
    const [path, tag] = at("inspect");
    const seen = await tab.run(async (path) => {
      const client = await Client.open(path);
      const bytes = Uint8Array.of(0, 1, 254, 255);
      const answers = [];
      for (const message of ["text", bytes.buffer, bytes.subarray(1, 3), new Blob([bytes, "x"])]) {
        answers.push(await client.ask(message));
      }
      await client.end([]);
      return answers;
    }, path);
    assert.deepEqual(seen, ["text 74657874", "binary 0001feff", "binary 01fe", "binary 0001feff78"]);
    assert.match(await tab.ended(tag), /^1005 Client 4 /);
  },

  async "a message event has a string, a Blob or an ArrayBuffer"({ tab, at }) {
    const [path] = at("echo");
    const seen = await tab.run(async (path) => {
      const client = await Client.open(path);
      const bytes = Uint8Array.of(0, 1, 254, 255);
      const kinds = [];
      for (const type of ["blob", "arraybuffer"]) {
        if (type !== "blob") client.ws.binaryType = type; // which is the default
        for (const message of ["text", bytes]) {
          const data = await client.ask(message);
          const content = data instanceof Blob ? await data.arrayBuffer() : data;
          const list = typeof content === "string" ? content : [...new Uint8Array(content)].join();
          kinds.push(`${client.ws.binaryType}: ${data.constructor.name} ${list}`);
        }
      }
      await client.end([]);
      return kinds;
    }, path);
    assert.deepEqual(seen, [
      "blob: String text",
      "blob: Blob 0,1,254,255",
      "arraybuffer: String text",
      "arraybuffer: ArrayBuffer 0,1,254,255",
    ]);
  },

  async "an empty message is one, too"({ tab, at }) {
    const [path, tag] = at("echo");
    const seen = await tab.run(async (path) => {
      const client = await Client.open(path);
      const answers = [await client.ask(""), (await client.ask(new Blob([]))).size];
      client.ws.binaryType = "arraybuffer";
      answers.push((await client.ask(new ArrayBuffer(0))).byteLength);
      await client.end([]);
      return answers;
    }, path);
    assert.deepEqual(seen, ["", 0, 0]);
    assert.match(await tab.ended(tag), /^1005 Client 3 /);
  },

  async "text beyond the BMP arrives, both ways"({ tab, at }) {
    const text = "\u{1F600} \u{10348} \u{10FFFF} \uFFFF \u0000 ü";
    const [path] = at("echo");
    const back = await tab.run(async ([path, text]) => (await Client.open(path)).ask(text), [path, text]);
    assert.equal(back, text);
    const [inspect] = at("inspect");
    const hex = await tab.run(async ([path, text]) => (await Client.open(path)).ask(text), [inspect, text]);
    assert.equal(hex, `text ${Buffer.from(text).toString("hex")}`);
  },

  // By the API, which takes a USVString: the server must never see what is not UTF-8.
  async "a lone surrogate becomes U+FFFD"({ tab, at }) {
    const [path, tag] = at("inspect");
    const seen = await tab.run(async (path) => {
      const client = await Client.open(path);
      const answers = [];
      for (const text of ["\uD83D", "a\uDE00b", "\uDE00\uD83D", "\uD83D\u{1F600}"]) {
        answers.push(await client.ask(text));
      }
      await client.end([4000, "why \uD83D"]);
      return answers;
    }, path);
    const hex = ["efbfbd", "61efbfbd62", "efbfbdefbfbd", "efbfbdf09f9880"];
    assert.deepEqual(seen, hex.map((bytes) => `text ${bytes}`));
    assert.equal(await tab.ended(tag), "4000 Client 4 why \uFFFD");
  },

  async "the server ends it, with a code and a reason"({ tab, at }) {
    const ends = [[1000, ""], [1000, "done"], [1012, "back soon"], [3000, ""], [4999, "ü".repeat(61)]];
    for (const [code, reason] of ends) {
      const [path, tag] = at("close");
      const seen = await tab.run(async ([path, order]) => {
        const client = await Client.open(path);
        const last = await client.ask(order);
        return { last, ...(await client.end()) };
      }, [path, code === 1000 && !reason ? "end" : `${code} ${reason}`]);
      assert.deepEqual(seen, { last: "the last message", ...clean(code, reason) });
      assert.equal(await tab.ended(tag), `${code} Server 1 ${reason}`);
    }
  },

  async "the server ends it while the page sends"({ tab, at }) {
    const [path, tag] = at("close");
    const seen = await tab.run(async (path) => {
      const client = await Client.open(path);
      client.ws.send("4001 enough");
      for (let i = 0; i < 16; i++) client.ws.send(new ArrayBuffer(1 << 20));
      const last = await client.next();
      return { last, ...(await client.end()) };
    }, path);
    const { unsent } = seen;
    assert.ok(unsent > 0, "the browser has sent all: not what is tested here");
    assert.deepEqual(seen, { last: "the last message", ...clean(4001, "enough"), wasClean: false, unsent });
    assert.equal(await tab.ended(tag), "4001 Server 1 enough");
  },

  async "the page ends it, with a code and a reason"({ tab, at }) {
    const ends = [[], [1000], [1000, "done"], [3000, "a reason"], [4000, ""], [4999, "ü".repeat(61)]];
    for (const args of ends) {
      const [path, tag] = at("echo");
      const end = await tab.run(async ([path, args]) => (await Client.open(path)).end(args), [path, args]);
      const [code = 1005, reason = ""] = args;
      assert.deepEqual(end, clean(code, reason));
      assert.equal(await tab.ended(tag), `${code} Client 0 ${reason}`);
    }
  },

  async "what was sent before the close is received"({ tab, at }) {
    const [path, tag] = at("count"); // which does not write: that fails as soon as the close frame has come
    const { code } = await tab.run(async (path) => {
      const client = await Client.open(path);
      for (let i = 0; i < 100; i++) client.ws.send(new ArrayBuffer(10_000));
      return client.end([4000, "all of it"]);
    }, path);
    assert.equal(code, 4000);
    assert.equal(await tab.ended(tag), "4000 Client 100 all of it");
  },

  async "a handler that panics is 1011"({ tab, at }) {
    const [path, tag] = at("panic");
    const end = await tab.run(async (path) => {
      const client = await Client.open(path);
      client.ws.send("now");
      return client.end();
    }, path);
    assert.deepEqual({ ...end, reason: "" }, clean(1011));
    assert.match(await tab.ended(tag), /^1011 Server 1 /);
  },

  async "a message too big is 1009"({ tab, at }) {
    const messages = [[LIMIT + 1, true], [LIMIT + 1, false], [8 * LIMIT, false]];
    for (const [size, isText] of messages) {
      const [path, tag] = at("echo");
      const end = await tab.run(async ([path, size, isText]) => {
        const client = await Client.open(path);
        client.ws.send(isText ? "x".repeat(size) : new ArrayBuffer(size));
        return client.end();
      }, [path, size, isText]);
      assert.deepEqual({ ...end, reason: "" }, { ...clean(1009), wasClean: end.unsent === 0, unsent: end.unsent });
      assert.match(end.reason, new RegExp(`${LIMIT} bytes`));
      assert.match(await tab.ended(tag), /^1009 Server 0 /);
    }
  },

  async "a wrong path is an error and 1006"({ tab }) {
    const end = await tab.saying("Unexpected response code: 404", () => new Client("/nothing/here").end());
    assert.deepEqual(end, unclean(REFUSED));
  },

  async "pages of another origin are refused"({ context, tab, at, foreign }) {
    const refused = async (page) => {
      const [path] = at("echo");
      const connect = ([path, base]) => new Client(path, undefined, base).end();
      const end = await page.saying("Unexpected response code: 403", connect, [path, wsOf(tab.base)]);
      assert.deepEqual(end, unclean(REFUSED));
    };
    await Tab.use(context, foreign, refused);
    await tab.run(() => {
      const frame = document.createElement("iframe");
      frame.sandbox = "allow-scripts"; // and no origin: "null"
      frame.srcdoc = "a stranger";
      document.body.append(frame);
      return new Promise((resolve) => (frame.onload = resolve));
    });
    tab.place = tab.page.frames()[1];
    assert.equal(await tab.run(() => window.origin), "null");
    await refused(tab);
  },

  async "many sockets of one page get their own answers, in order"({ tab, at }) {
    const places = Array.from({ length: MANY }, () => at("echo"));
    const seen = await tab.run(async (paths) => {
      const clients = [];
      while (paths.length > 0) {
        // Chromium lets handshakes wait for seconds where many are under way.
        const some = paths.splice(0, 8).map((path) => Client.open(path));
        clients.push(...(await Promise.all(some)));
      }
      const numbers = Array.from({ length: 20 }, (_, n) => n);
      for (const n of numbers) clients.forEach((client, i) => client.ws.send(`${n} of ${i}`));
      const answers = await Promise.all(
        clients.map(async (client) => {
          const own = [];
          for (const _ of numbers) own.push(await client.next());
          return own;
        }),
      );
      const right = answers.filter((own, i) => own.every((answer, n) => answer === `${n} of ${i}`));
      const ends = await Promise.all(clients.map((client, i) => client.end([4000 + i])));
      return { right: right.length, codes: ends.map(({ code }) => code) };
    }, places.map(([path]) => path));
    assert.deepEqual(seen, { right: MANY, codes: Array.from({ length: MANY }, (_, i) => 4000 + i) });
    const ends = await Promise.all(places.map(([, tag]) => tab.ended(tag)));
    assert.deepEqual(ends, Array.from({ length: MANY }, (_, i) => `${4000 + i} Client 20 `));
  },

  async "a page that goes away is 1001"({ tab, at }) {
    const ways = [() => tab.page.reload(), () => tab.page.goto("about:blank").then(() => tab.page.goto(tab.base))];
    for (const leave of ways) {
      const [path, tag] = at("echo");
      assert.equal(await tab.run(async (path) => (await Client.open(path)).ask("hello"), path), "hello");
      await leave();
      assert.match(await tab.ended(tag), /^1001 Client 1 /);
    }
  },

  async "a page that is reloaded in the middle leaves nothing behind"({ tab, at }) {
    const [path, tag] = at("echo");
    await tab.run(async (path) => {
      const client = await Client.open(path);
      for (let i = 0; i < 20; i++) client.ws.send("x".repeat(1000));
      for (let i = 0; i < 500; i++) client.ws.send(await client.next());
      client.ws.onmessage = ({ data }) => client.ws.send(data); // and so on
    }, path);
    await tab.page.reload();
    assert.match(await tab.ended(tag), GONE);
    const [next] = at("echo");
    const back = await tab.run(async (path) => {
      window.kept = await Client.open(path);
      return window.kept.ask("here again");
    }, next);
    assert.equal(back, "here again");
    const paths = (await tab.get("/connections")).split("\n");
    assert.ok(paths.includes(next) && !paths.includes(path), `${paths}`);
  },

  async "a page that goes away while the server writes leaves nothing behind"({ tab, at }) {
    const [path, tag] = at("stream");
    await tab.run(async (path) => {
      const client = await Client.open(path);
      for (let i = 0; i < 10; i++) await client.next();
    }, path);
    await tab.page.reload();
    assert.match(await tab.ended(tag), GONE);
    assert.ok(!(await tab.get("/connections")).split("\n").includes(path));
  },

  async "the session is kept by its cookie"({ context, tab, at }) {
    const open = async (path) => {
      const client = await Client.open(path);
      const fetchId = async () => (await fetch("/session")).text();
      const ids = [await client.next(), await fetchId()];
      await client.end([]);
      return { ids: [...ids, await fetchId()], readable: document.cookie };
    };
    const first = await tab.run(open, at("session")[0]);
    await tab.page.reload();
    const second = await tab.run(open, at("session")[0]);
    const ids = [...first.ids, ...second.ids];
    assert.ok(ids[0].length >= 20 && ids.every((id) => id === ids[0]), ids.join(" "));
    assert.deepEqual([first.readable, second.readable], ["", ""]);
    const [{ value, httpOnly, sameSite, secure, expires }, ...others] = await context.cookies();
    const [id, signature] = value.split(".");
    const isSecure = tab.base.startsWith("https");
    const wanted = { id: ids[0], httpOnly: true, sameSite: "Lax", secure: isSecure, expires: -1 };
    assert.deepEqual({ id, httpOnly, sameSite, secure, expires }, wanted);
    assert.equal(signature.length, 22);
    assert.equal(others.length, 0);
    await context.clearCookies();
    const stranger = await tab.run(open, at("session")[0]);
    assert.notEqual(stranger.ids[0], ids[0]);
  },
};

// On the page of the command, at /echo and at /echo-shared.
const commandChecks = {
  async "messages come back, compressed if that was agreed"({ tab, path, extensions }) {
    const seen = await tab.run(async (path) => {
      const client = await Client.open(path);
      client.ws.binaryType = "arraybuffer";
      const random = crypto.getRandomValues(new Uint8Array(60_000));
      const line = "the same words again and again, ".repeat(2000);
      const texts = [line, line, "", "short", line + "\u{1F600}"];
      let right = 0;
      for (const text of texts) right += (await client.ask(text)) === text;
      for (const bytes of [random, random, random.subarray(0, 0)]) {
        right += String(new Uint8Array(await client.ask(bytes))) === String(bytes);
      }
      await client.end([]);
      return { right, extensions: client.ws.extensions };
    }, path);
    assert.deepEqual(seen, { right: 8, extensions });
  },

  async "messages of more than a MiB come back"({ tab, path }) {
    const right = await tab.run(async (path) => {
      const client = await Client.open(path);
      client.ws.binaryType = "arraybuffer";
      const text = "\u{1F600} and more ".repeat(100_000);
      const bytes = new Uint8Array(2 << 20).map((_, i) => (i * i) >> 8);
      const isText = (await client.ask(text)) === text;
      const back = new Uint8Array(await client.ask(bytes));
      await client.end([]);
      return [isText, back.length === bytes.length && back.every((byte, i) => byte === bytes[i])];
    }, path);
    assert.deepEqual(right, [true, true]);
  },
};

const [command, browserServer] = process.argv.slice(2);
if (browserServer === undefined) {
  console.log("usage: node protocol.mjs SWITCHBOARD BROWSER_SERVER");
  process.exit(2);
}

/** The page of each scheme. */
const pages = ({ port, tlsPort }) => ({ ws: `http://127.0.0.1:${port}`, wss: `https://127.0.0.1:${tlsPort}` });

/**
 * Calls `fn` for each scheme, beside each other, for there is much waiting: with what runs a check there, and with its
 * name. All of its checks have one tab, for a new one takes longer than most of them.
 */
function forEachScheme(browser, server, fn) {
  return Promise.all(
    Object.entries(pages(server)).map(async ([scheme, base]) => {
      const context = await browser.newContext({ ignoreHTTPSErrors: true });
      const tab = await Tab.open(context, base);
      const check = (name, run) =>
        test(`${scheme}${name}`, async () => {
          await context.clearCookies();
          await tab.load();
          await run({ context, tab });
        });
      await fn(check, scheme);
      await context.close();
    }),
  );
}

let tags = 0;

async function checkProtocol(browser) {
  const [server, elsewhere] = [await start(browserServer, []), await start(browserServer, [])];
  await forEachScheme(browser, server, async (check, scheme) => {
    for (const kind of ["synchronous", "shared"]) {
      const at = (route) => {
        const tag = `t${tags++}`;
        return [`${kind === "shared" ? "/shared" : ""}/${route}/${tag}`, tag];
      };
      for (const [name, run] of Object.entries(checks)) {
        await check(`, ${kind}: ${name}`, (page) => run({ ...page, at, foreign: pages(elsewhere)[scheme] }));
      }
    }
  });
  await test("no connection is left", async () => {
    const response = await fetch(`${pages(server).ws}/idle`);
    assert.equal(response.status, 200, await response.text());
  });
  await Promise.all([server.kill(), elsewhere.kill()]);
}

async function checkCommand(browser) {
  const modes = {
    off: "",
    pooled: "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    dedicated: "permessage-deflate",
  };
  for (const [mode, extensions] of Object.entries(modes)) {
    const server = await startServer(command, ["--compress", mode, "--max-message-size", "16M"]);
    await forEachScheme(browser, server, async (check) => {
      for (const path of ["/echo", "/echo-shared"]) {
        for (const [name, run] of Object.entries(commandChecks)) {
          await check(`, ${path}, compression ${mode}: ${name}`, ({ tab }) => run({ tab, path, extensions }));
        }
      }
    });
    await server.stop();
  }
}

async function checkExamples(browser) {
  const server = await startServer(command);
  await forEachScheme(browser, server, async (check) => {
    await check(": the example of the original echoes, and ends at exit", async ({ tab }) => {
      const seen = await tab.run(async () => {
        const client = await Client.open("/csp/user/MyApp.MyWebSocketServer.cls");
        const answer = await client.ask("hello");
        client.ws.send("exit");
        return { answer, ...(await client.end()) };
      });
      assert.deepEqual(seen, { answer: "hello", ...clean(1000) });
    });
    await check(": two pages chat", async ({ context, tab: ada }) => {
      const enter = async (name) => {
        window.seat = await Client.open(`/chat?room=${location.protocol}&name=${name}`);
        return window.seat.next();
      };
      const say = (line) => window.seat.ask(line);
      const hear = () => window.seat.next();
      assert.equal(await ada.run(enter, "Ada"), "* Ada came");
      await Tab.use(context, ada.base, async (bob) => {
        assert.equal(await bob.run(enter, "Bob"), "* Bob came");
        assert.equal(await ada.run(hear), "* Bob came");
        assert.equal(await ada.run(say, "größe \u{1F600}"), "Ada: größe \u{1F600}");
        assert.equal(await bob.run(hear), "Ada: größe \u{1F600}");
      });
      assert.equal(await ada.run(hear), "* Bob left");
    });
  });
  await server.stop();
}

/** Passes on to a port what comes, until it is cut: then all connections end, with whatever was on its way. */
async function cuttingProxy(port) {
  const open = new Set();
  const proxy = createServer((client) => {
    const server = connect(port, "127.0.0.1");
    for (const [one, other] of [[client, server], [server, client]]) {
      open.add(one);
      one.pipe(other);
      one.on("error", () => {}).on("close", () => {
        open.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  return { port: proxy.address().port, cut: () => open.forEach((socket) => socket.resetAndDestroy()), end: () => proxy.close() };
}

/** What a room has to remember is less than it does: so however slow the machine is, nothing may be missing. */
async function checkRecovery(browser) {
  const server = await startServer(command, [], { tls: false });
  const proxy = await cuttingProxy(server.port);
  const context = await browser.newContext();
  const talk = async () => {
    const talker = await Client.open("/chat?room=r&name=talker");
    for (let line = 0; line < 60; line++) {
      talker.ws.send(String(line));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const listen = () => {
    ReconnectingWebSocket.firstDelay = ReconnectingWebSocket.maxDelay = 30;
    window.listeners = [1, 2].map((number) => {
      const ws = new ReconnectingWebSocket(`/chat?room=r&name=listener+${number}`, [], { since: "" });
      const listener = { lines: [], opened: 0, gaps: 0, ws };
      ws.onopen = () => listener.opened++;
      ws.ongap = () => listener.gaps++;
      ws.onmessage = ({ data }) => data.startsWith("talker: ") && listener.lines.push(Number(data.slice(8)));
      return listener;
    });
  };
  const allOpened = async (cut) => {
    while (listeners.some(({ opened }) => opened <= cut)) await new Promise((resolve) => setTimeout(resolve, 20));
  };
  const allHeard = async () => {
    const until = performance.now() + 15_000;
    const lacks = () => listeners.some(({ lines }) => lines.at(-1) !== 59);
    while (lacks() && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 20));
    return listeners.map(({ lines, opened, gaps, ws }) => ({ lines, opened: opened > 1, gaps, since: ws.since.split(":").length }));
  };
  await test("who loses the network gets all that was missed, once and in order", () =>
    Tab.use(context, `http://127.0.0.1:${proxy.port}`, (tab) =>
      Tab.use(context, `http://127.0.0.1:${server.port}`, async (other) => {
        await tab.run(listen);
        const talked = other.run(talk);
        for (let cut = 0; cut < 5; cut++) {
          await new Promise((resolve) => setTimeout(resolve, 250));
          await tab.run(allOpened, cut); // who is not there is not cut
          proxy.cut();
        }
        await talked;
        const lines = Array.from({ length: 60 }, (_, line) => line);
        const whole = { lines, opened: true, gaps: 0, since: 2 };
        assert.deepEqual(await tab.run(allHeard), [whole, whole]);
      })));
  await test("positions are read from text and bytes, and from nothing that only looks like one", () =>
    Tab.use(context, `http://127.0.0.1:${server.port}`, async (tab) => {
      const [a, b, c] = ["a", "b", "c"].map((letter) => letter.repeat(11));
      const others = [`${a}:2`, `${a}a:2\n`, `aaaaaaaaaa:2\n`, ` ${a}:2\n`, `${a}:2 x\n`, `${a}:\n`, `x\n${a}:2\n`, ""];
      assert.deepEqual(await tab.run(readPositions, { a, b, c, others }), {
        got: [
          ["recovered", `${a}:0`], ["gap", `${b}:7`], ["message", `${a}:1`, "x\ny"], ["message", `${b}:8`, [0, 255]],
          ["message", `${b}:9`, ""], ["message", "", [97]], ["message", `${b}:10`, "a blob of 3"], ["message", "", "a blob of 1"],
          ...others.map((text) => ["message", "", text]), ["message", `${c}:1`, "new"],
        ],
        since: `${a}:1,${b}:10,${c}:1`,
        next: [`?x=1&since=${encodeURIComponent(`${a}:1,${b}:10,${c}:1`)}`, "arraybuffer", "blob"],
      });
    }));
  await test("close while it waits for the next try is the end, and told once", () =>
    Tab.use(context, `http://127.0.0.1:${server.port}`, async (tab) => {
      assert.deepEqual(await tab.run(closeWhileWaiting), { told: ["waiting 1006", "close 1006"], states: [0, 3], sockets: 1 });
    }));
  await context.close();
  proxy.end();
  await server.stop();
}

/** In a page. */
async function readPositions({ a, b, c, others }) {
  const { sockets, end } = fakeSockets();
  ReconnectingWebSocket.firstDelay = ReconnectingWebSocket.maxDelay = 10;
  const ws = new ReconnectingWebSocket("/chat?x=1", [], { since: "" });
  const got = [];
  const show = (data) => typeof data === "string" ? data : data instanceof Blob ? `a blob of ${data.size}` : [...new Uint8Array(data)];
  for (const type of ["recovered", "gap", "message"]) {
    ws.addEventListener(type, ({ data, lastEventId }) => got.push([type, lastEventId, ...(data === null ? [] : [show(data)])]));
  }
  const give = (data) => sockets[0].give(data);
  const bytes = (text, ...more) => Uint8Array.of(...new TextEncoder().encode(text), ...more).buffer;
  give(`${a}:0 recovered\n`);
  give(`${b}:7 gap\n`);
  give(`${a}:1\nx\ny`);
  give(bytes(`${b}:8\n`, 0, 255));
  give(`${b}:9\n`);
  give(bytes("a"));
  ws.binaryType = "blob";
  give(bytes(`${b}:10\nabc`));
  give(bytes("a"));
  others.forEach(give);
  give(`${c}:1\nnew`);
  const since = ws.since;
  sockets[0].lose();
  while (sockets.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  const next = [new URL(sockets[1].url).search, sockets[1].binaryType, ws.binaryType];
  ws.close();
  end();
  return { got, since, next };
}

/** In a page. */
async function closeWhileWaiting() {
  const { sockets, end } = fakeSockets();
  ReconnectingWebSocket.firstDelay = ReconnectingWebSocket.maxDelay = 30;
  const ws = new ReconnectingWebSocket("/chat", [], { since: "" });
  const told = [];
  for (const type of ["waiting", "close"]) ws.addEventListener(type, ({ code }) => told.push(`${type} ${code}`));
  sockets[0].lose();
  const states = [ws.readyState];
  ws.close();
  states.push(ws.readyState);
  ws.close();
  await new Promise((resolve) => setTimeout(resolve, 100));
  end();
  return { told, states, sockets: sockets.length };
}

async function checkAllowedOrigins(browser) {
  const friend = await start(browserServer, []);
  const origins = Object.values(pages(friend)).flatMap((origin) => ["--allow-origin", origin]);
  const server = await startServer(command, origins);
  await forEachScheme(browser, server, async (check, scheme) => {
    await check(": pages of an allowed origin are let in, and no others", async ({ context, tab }) => {
      const connect = async (base) => {
        const client = new Client("/echo", undefined, base);
        await client.opened;
        return client.ask("from a friend");
      };
      const answer = await Tab.use(context, pages(friend)[scheme], (other) => other.run(connect, wsOf(tab.base)));
      assert.equal(answer, "from a friend");
      // The list stands alone: the server's own page is not in it.
      const refused = await tab.saying("Unexpected response code: 403", () => new Client("/echo").end());
      assert.deepEqual(refused, unclean(REFUSED));
    });
  });
  await Promise.all([server.stop(), friend.kill()]);
}

/**
 * How all connections of a server end with it: synchronous and shared ones, of a page of each scheme. `then` is called
 * while the pages are still there.
 */
async function endsWith(browser, server, end, then = () => {}) {
  const [plain, secure] = Object.values(pages(server));
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const ends = await Tab.use(context, plain, (one) =>
    Tab.use(context, secure, async (two) => {
      for (const tab of [one, two]) {
        await tab.run(async () => {
          window.clients = await Promise.all(["/echo", "/echo-shared"].map((path) => Client.open(path)));
        });
      }
      const ended = end();
      const wait = () => Promise.all(window.clients.map((client) => client.end()));
      const ends = await Promise.all([one.run(wait), two.run(wait)]);
      await ended;
      await then(one, two);
      return ends.flat();
    }));
  await context.close();
  return ends;
}

async function checkServerEnds(browser) {
  await test("a server that shuts down is 1001, and can be reached again when it is back", async () => {
    const server = await startServer(command);
    const back = async (...tabs) => {
      assert.deepEqual(await server.ended, { code: 0, signal: null });
      const next = await startServer(command, [], server);
      for (const tab of tabs) {
        const answer = await tab.run(async () => (await Client.open("/echo")).ask("here again"));
        assert.equal(answer, "here again");
      }
      await next.stop();
    };
    const ends = await endsWith(browser, server, server.stop, back);
    assert.deepEqual(ends, Array(4).fill(clean(1001, "the server shuts down")));
  });
  await test("a server that is killed is 1006", async () => {
    const server = await startServer(command);
    const ends = await endsWith(browser, server, server.kill);
    assert.deepEqual(ends, Array(4).fill(unclean(OPENED)));
  });
}

await withBrowser(async (browser) => {
  await checkProtocol(browser);
  await checkCommand(browser);
  await checkExamples(browser);
  await checkRecovery(browser);
  await checkAllowedOrigins(browser);
  await checkServerEnds(browser);
});
finish();
