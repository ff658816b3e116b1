// Manages a server with AWS's own client for JavaScript, as it is.
//
//     node aws_client.mjs MANAGED_SERVER CERTIFICATE KEY CA_FILE      target/debug/examples/managed_server certs/server.pem …
//
// It starts the server (managed_server.rs). Exit code 1, with a text that says why, at the first check that fails.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import https from "node:https";
import net from "node:net";
import readline from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import {
  ApiGatewayManagementApiClient as Client,
  DeleteConnectionCommand as Delete,
  ForbiddenException,
  GetConnectionCommand as Get,
  GoneException,
  LimitExceededException,
  PayloadTooLargeException,
  PostToConnectionCommand as Post,
} from "@aws-sdk/client-apigatewaymanagementapi";
import WebSocket from "ws";

const PATIENCE = 10_000; // ms, for each wait
const WHOLE_RUN = 120_000;
const GONE = "AAAAAAAAAAAAAAAAAAAAAA";

const [program, certificate, key, caFile] = process.argv.slice(2);
setTimeout(() => fail(new Error("it takes too long")), WHOLE_RUN).unref();
const started = spawn(program, [certificate, key], { stdio: ["pipe", "pipe", "inherit"] });
const addresses = {};

function fail(error) {
  console.error(error);
  started.kill();
  process.exit(1);
}

class Server {
  constructor(scheme, stage) {
    this.endpoint = addresses[scheme] + stage;
    this.clients = [];
    this.ca = readFileSync(caFile);
  }

  client(options = {}) {
    const { secret = addresses.token, ...rest } = options;
    const credentials = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: secret };
    const { endpoint, ca } = this;
    const httpsAgent = new https.Agent({ ca, keepAlive: true, maxSockets: 50 });
    const requestHandler = { httpsAgent, requestTimeout: PATIENCE };
    const client = new Client({ endpoint, region: "eu-central-1", credentials, requestHandler, ...rest });
    this.clients.push(client);
    return client;
  }

  // A client of the server: what it receives, and its ID.
  async connect() {
    const ws = new WebSocket(addresses.ws, { perMessageDeflate: false });
    const received = [];
    let wake = () => {};
    ws.on("message", (data, isBinary) => {
      received.push(isBinary ? data : data.toString());
      wake();
    });
    ws.next = async () => {
      const until = Date.now() + PATIENCE;
      while (received.length === 0) {
        assert(Date.now() < until, "no message came");
        await Promise.race([new Promise((resolve) => (wake = resolve)), new Promise((r) => setTimeout(r, 100))]);
      }
      return received.shift();
    };
    ws.id = await ws.next();
    return ws;
  }
}

// The ID of one that does not read any more, and whose queue may be full; and its socket.
async function deaf() {
  const { hostname, port, host } = new URL(addresses.ws);
  const socket = net.connect(port, hostname);
  socket.write(
    `GET /drop HTTP/1.1\r\nHost: ${host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
  );
  let received = "";
  while (!/\r\n\r\n[^]{24}/.test(received)) {
    const [more] = await once(socket, "data");
    received += more.toString("latin1");
  }
  socket.pause();
  return { id: received.slice(-GONE.length), socket };
}

const checks = {
  async messages_are_posted(server) {
    const client = server.client();
    const ws = await server.connect();
    for (const [data, expected] of [
      ["hello", "hello"],
      ["grüße \u{1f600} \r\n", "grüße \u{1f600} \r\n"],
      [new Uint8Array([255, 0, 1]), Buffer.from([255, 0, 1])],
      [Buffer.alloc(128 << 10, "t"), "t".repeat(128 << 10)],
      [Buffer.alloc(128 << 10, 255), Buffer.alloc(128 << 10, 255)],
    ]) {
      const { $metadata } = await client.send(new Post({ ConnectionId: ws.id, Data: data }));
      assert.equal($metadata.httpStatusCode, 200);
      assert.deepEqual(await ws.next(), expected);
    }
    ws.terminate();
  },

  async a_connection_is_shown(server) {
    const ws = await server.connect();
    const shown = await server.client().send(new Get({ ConnectionId: ws.id }));
    for (const date of [shown.ConnectedAt, shown.LastActiveAt]) {
      assert(date instanceof Date && Math.abs(Date.now() - date) < 60_000, String(date));
    }
    assert.equal(shown.Identity.SourceIp, "127.0.0.1");
    assert.equal(typeof shown.Identity.UserAgent, "string");
    ws.terminate();
  },

  async a_connection_is_deleted_and_then_gone(server) {
    const client = server.client();
    const ws = await server.connect();
    const closed = once(ws, "close");
    const { $metadata } = await client.send(new Delete({ ConnectionId: ws.id }));
    assert.equal($metadata.httpStatusCode, 204);
    assert.equal((await closed)[0], 1000);
    // The server may not have seen the client's close frame yet.
    while (await client.send(new Get({ ConnectionId: ws.id })).then(() => true, () => false)) await sleep(10);
    for (const ConnectionId of [ws.id, GONE]) {
      for (const command of [new Post({ ConnectionId, Data: "x" }), new Get({ ConnectionId }), new Delete({ ConnectionId })]) {
        await assert.rejects(client.send(command), GoneException);
      }
    }
  },

  async what_cannot_be_is_refused(server) {
    const client = server.client();
    for (const ConnectionId of ["x", "L0SM9cOFvHcCIhw=", "../..", "a/b c%2F+ä", "@connections", "?#&"]) {
      const refused = { name: "BadRequestException", $metadata: { httpStatusCode: 400 } };
      await assert.rejects(client.send(new Post({ ConnectionId, Data: "x" })), (e) => {
        assert.deepEqual({ name: e.name, $metadata: { httpStatusCode: e.$metadata.httpStatusCode } }, refused);
        return true;
      });
    }
    const ws = await server.connect();
    const large = new Post({ ConnectionId: ws.id, Data: Buffer.alloc((1 << 20) + 1) });
    await assert.rejects(client.send(large), PayloadTooLargeException);
    await client.send(new Post({ ConnectionId: ws.id, Data: "it goes on" }));
    assert.equal(await ws.next(), "it goes on");
    ws.terminate();
  },

  async a_full_queue_is_tried_again(server) {
    const { id, socket } = await deaf();
    const post = () => new Post({ ConnectionId: id, Data: Buffer.alloc(1 << 20) });
    const until = async (attempts) => {
      const client = server.client({ maxAttempts: attempts });
      for (let n = 0; n < 100; n++) {
        try {
          await client.send(post());
        } catch (e) {
          assert(e instanceof LimitExceededException, e);
          return e.$metadata.attempts;
        }
      }
    };
    assert.equal(await until(1), 1);
    assert.equal(await until(2), 2);
    socket.destroy();
  },

  async who_may_not_is_forbidden(server) {
    const ws = await server.connect();
    const post = () => new Post({ ConnectionId: ws.id, Data: "x" });
    const wrong = server.client({ secret: addresses.token.slice(0, -1) });
    await assert.rejects(wrong.send(post()), ForbiddenException);
    const reader = server.client({ secret: addresses.read_token });
    assert.equal((await reader.send(new Get({ ConnectionId: ws.id }))).Identity.SourceIp, "127.0.0.1");
    await assert.rejects(reader.send(post()), (e) => e instanceof ForbiddenException && /only read/.test(e.message));
    const ahead = server.client({ systemClockOffset: 20 * 60_000, maxAttempts: 1 });
    await assert.rejects(ahead.send(post()), /15 minutes/);
    await server.client({ systemClockOffset: -14 * 60_000, region: "us-east-1" }).send(post());
    assert.equal(await ws.next(), "x");
    ws.terminate();
  },

  async many_at_once(server) {
    const client = server.client();
    const ws = await server.connect();
    const numbers = Array.from({ length: 200 }, (_, n) => String(n));
    await Promise.all(numbers.map((Data) => client.send(new Post({ ConnectionId: ws.id, Data }))));
    const got = [];
    while (got.length < numbers.length) got.push(await ws.next());
    assert.deepEqual(got.map(Number).sort((a, b) => a - b), numbers.map(Number));
    ws.terminate();
  },
};

try {
  for await (const line of readline.createInterface({ input: started.stdout })) {
    if (line === "") break;
    const [name, value] = line.split(" ");
    addresses[name] = value;
  }
  const servers = [new Server("http", ""), new Server("https", "/prod"), new Server("http", "/$default")];
  for (const server of servers) {
    for (const [name, check] of Object.entries(checks)) {
      console.log(`${name} at ${server.endpoint}`);
      await check(server);
      server.clients.splice(0).forEach((client) => client.destroy()); // they keep up to 50 connections each
    }
  }
  started.stdin.end();
  const [code] = started.exitCode === null ? await once(started, "exit") : [started.exitCode];
  assert.equal(code, 0, "the server's exit code");
  console.log(`AWS's client: ${servers.length * Object.keys(checks).length} checks passed`);
  process.exit(0);
} catch (error) {
  fail(error);
}
