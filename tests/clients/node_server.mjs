// Serves strangers_client (client.rs) with the npm package ws, and runs it.
//
//     node node_server.mjs CERTIFICATE KEY CA_FILE CLIENT      certs/server.pem certs/server.key certs/ca.pem …/strangers_client
//
// Exit code: that of the client.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { WebSocketServer } from "ws";

const WHOLE_RUN = 120_000; // ms

const [certificate, key, ca, client] = process.argv.slice(2);
let lastClose = "none";

function serve(ws, request) {
  ws.on("error", () => {});
  switch (request.url) {
    case "/fragments":
      ws.send("a message", { fin: false });
      ws.send(" in", { fin: false });
      ws.send(" pieces", { fin: true });
      break;
    case "/ping":
      ws.on("pong", () => ws.send("got the pong"));
      ws.ping("x");
      break;
    case "/close":
      ws.close(4000, "bye");
      break;
    case "/last-close":
      ws.send(lastClose);
      break;
    case "/break":
      ws.terminate();
      break;
    default:
      ws.on("message", (data, isBinary) => ws.send(data, { binary: isBinary }));
      ws.on("close", (code, reason) => {
        if (code === 4001) lastClose = `${code} ${reason}`;
      });
  }
}

function answer(socket, head, body) {
  socket.end(`HTTP/1.1 ${head}\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
}

async function listen(server) {
  const sockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: true,
    maxPayload: 1 << 24,
    handleProtocols: (offered) => (offered.has("chat") ? "chat" : false),
  });
  server.on("upgrade", (request, socket, head) => {
    socket.on("error", () => {});
    if (request.url === "/refuse") return answer(socket, "401 Unauthorized", "who are you?");
    if (request.url === "/redirect") return answer(socket, "302 Found\r\nLocation: /echo", "");
    sockets.handleUpgrade(request, socket, head, (ws) => serve(ws, request));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server.address().port;
}

const ws = await listen(http.createServer());
const wss = await listen(https.createServer({ cert: readFileSync(certificate), key: readFileSync(key) }));
const child = spawn(client, [`ws://127.0.0.1:${ws}`, `wss://localhost:${wss}`, ca], { stdio: "inherit" });
setTimeout(() => child.kill("SIGKILL"), WHOLE_RUN).unref();
child.on("exit", (code) => process.exit(code ?? 1));
