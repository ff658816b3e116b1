// A WebSocket that reconnects by itself. Copy this file; it needs no other.
//
//     <script src="reconnecting.js"></script>           (or put `export` before `class`, and import it)
//
//     const ws = new ReconnectingWebSocket("/echo");    // a path on this host, or any URL; then subprotocols
//     ws.onopen = () => ws.send("hello");               // after each connect: the server knows nothing of the last
//     ws.onmessage = (event) => console.log(event.data);
//     ws.onwaiting = (event) => console.log(`lost (${event.code}), next try in ${event.delay} ms`);
//     ws.onclose = (event) => console.log(`over (${event.code})`);
//
// It is used as a WebSocket is, with these differences:
// - `waiting` is fired when a connection is lost, or could not be made, and another try follows. It has what `close`
//   has, and `delay`: 1 s, 2 s, 4 s … 30 s, less up to a half of it at random, so that not all clients come back at
//   once. It begins at 1 s again after a connection of 10 s. When the browser is `online` again, it tries at once.
// - `close` is fired once, when it is over: after `close()`, or a close code with which another try is of no use.
// - Until the next `open`, `readyState` is CONNECTING and `send` throws. No message is kept: those on their way when
//   the connection was lost may have arrived or not.
// - With `{ since: "" }` as a third argument it asks for what it has missed: the server says the position of each message of
//   a topic that remembers (`join_since`), and the URL of the next try has the last ones, `?since=EPOCH:OFFSET`. At first
//   that is the text given here: with an empty one it gets all that is remembered. `message` has the position as its
//   `lastEventId`. After each `open`, for each such topic, `recovered` is fired, or `gap` if something is missing that the
//   server does not remember any more; both have the position as their `lastEventId`, too, and come before the messages that
//   were missed. `binaryType` is "arraybuffer" at first. A message without a position must not begin like one.
class ReconnectingWebSocket extends EventTarget {
  static firstDelay = 1000; // ms, as all here
  static maxDelay = 30_000;
  static stable = 10_000;
  static connectTimeout = 20_000;
  static #line = /^(([\w-]{11}):\d+)(?: (recovered|gap))?\n/;

  // 1000 and 1005: the server is done. 1002, 1003, 1007 to 1010: it does not want what this page sends, and it would
  // be the same again. From 3000: the application's own, so it has its reasons. All others may pass, such as 1001 and
  // 1012 (a restart), 1006 (lost), 1011 (an error) and 1013 (try again later).
  static isFinal = (code) => [1000, 1002, 1003, 1005, 1007, 1008, 1009, 1010].includes(code) || code >= 3000;

  #url;
  #protocols;
  #binaryType = "blob";
  #socket;
  #tries = 0;
  #timer = 0;
  #lost = null; // while it waits: how the last connection ended
  #ended = false;
  #seen = null; // the last position of each epoch, or what was given

  constructor(url, protocols = [], { since } = {}) {
    super();
    this.#url = new URL(url, location.href).href.replace(/^http/, "ws");
    this.#protocols = protocols;
    if (since !== undefined) {
      this.#seen = new Map(since.split(",").filter(Boolean).map((position) => [position.split(":")[0], position]));
      this.#binaryType = "arraybuffer";
    }
    this.#connect();
  }

  get url() { return this.#socket.url; }
  get readyState() { return this.#lost ? WebSocket.CONNECTING : this.#socket.readyState; }
  get bufferedAmount() { return this.#socket.bufferedAmount; }
  get since() { return this.#seen && [...this.#seen.values()].join(","); }
  get protocol() { return this.#socket.protocol; }
  get extensions() { return this.#socket.extensions; }
  get binaryType() { return this.#binaryType; }
  set binaryType(type) {
    if (type !== "blob" && type !== "arraybuffer") return; // as a WebSocket does
    this.#binaryType = type;
    if (!this.#seen) this.#socket.binaryType = type;
  }

  send(data) {
    if (this.#lost) throw new DOMException("Not connected: waiting for the next try.", "InvalidStateError");
    this.#socket.send(data);
  }

  close(code, reason) {
    this.#socket.close(code, reason); // throws if they are wrong: then nothing has changed
    this.#ended = true;
    if (!this.#lost) return;
    const event = new CloseEvent("close", this.#lost);
    this.#stopWaiting();
    queueMicrotask(() => this.#fire(event));
  }

  #connect = () => {
    const url = new URL(this.#url);
    if (this.#seen) url.searchParams.set("since", this.since);
    const socket = new WebSocket(url, this.#protocols);
    this.#stopWaiting();
    this.#socket = socket;
    socket.binaryType = this.#seen ? "arraybuffer" : this.#binaryType; // in a Blob no position can be seen at once
    const timeout = setTimeout(() => socket.close(), ReconnectingWebSocket.connectTimeout);
    let opened = NaN;
    socket.onopen = (event) => {
      clearTimeout(timeout);
      opened = performance.now();
      this.#fire(event);
    };
    socket.onmessage = (event) => this.#receive(event);
    socket.onerror = (event) => this.#fire(event);
    socket.onclose = (event) => {
      clearTimeout(timeout);
      if (performance.now() - opened >= ReconnectingWebSocket.stable) this.#tries = 0;
      if (this.#ended || ReconnectingWebSocket.isFinal(event.code)) this.#fire(event);
      else this.#wait(event);
    };
  };

  #receive(event) {
    if (!this.#seen) return this.#fire(event);
    const { data, origin } = event;
    const isText = typeof data === "string";
    // The longest line, or more than that: only its characters are looked at.
    const start = isText ? data : String.fromCharCode(...new Uint8Array(data.slice(0, 48)));
    const [line = "", position = "", epoch, joined] = ReconnectingWebSocket.#line.exec(start) ?? [];
    if (line) {
      this.#seen.delete(epoch); // so that the last one is the newest
      this.#seen.set(epoch, position);
      // Epochs end, and nobody says which: the oldest are of no use.
      if (this.#seen.size > 64) this.#seen.delete(this.#seen.keys().next().value);
    }
    if (joined) return this.#fire(new MessageEvent(joined, { origin, lastEventId: position }));
    const rest = data.slice(line.length);
    const isBlob = !isText && this.#binaryType === "blob";
    this.#fire(new MessageEvent("message", { data: isBlob ? new Blob([rest]) : rest, origin, lastEventId: position }));
  }

  #wait(event) {
    const { firstDelay, maxDelay } = ReconnectingWebSocket;
    const delay = Math.min(maxDelay, firstDelay * 2 ** this.#tries++) * (1 - Math.random() / 2);
    this.#lost = event;
    this.#timer = setTimeout(this.#connect, delay);
    addEventListener("online", this.#connect);
    this.#fire(Object.assign(new CloseEvent("waiting", event), { delay }));
  }

  #stopWaiting() {
    this.#lost = null;
    clearTimeout(this.#timer);
    removeEventListener("online", this.#connect);
  }

  #fire(event) {
    const copy = event.target ? new event.constructor(event.type, event) : event; // one that was fired already
    this.dispatchEvent(copy);
    this[`on${event.type}`]?.(copy);
  }
}

for (const state of ["CONNECTING", "OPEN", "CLOSING", "CLOSED"]) {
  ReconnectingWebSocket[state] = ReconnectingWebSocket.prototype[state] = WebSocket[state];
}
