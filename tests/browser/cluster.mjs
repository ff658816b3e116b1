// Drives the page of examples/cluster, as people do, while nodes and Redis are killed.
//
//     node cluster.mjs target/debug/examples/cluster
//
// Run from the root of the repository, with a redis-server in PATH. Screenshots go to target/test-logs/browser/: look at them.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { finish, start, test, withBrowser } from "./harness.mjs";
import { PHONE, close, open, says, shot, submit } from "./tabs.mjs";

const [example] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), "cluster-"));
const socket = join(folder, "redis");

const startRedis = () =>
  start("redis-server", ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder], (said) =>
    said.includes("eady to accept") ? {} : undefined);

const startNode = (number, port = 0) =>
  start(example, [`127.0.0.1:${port}`, String(number), `redis+unix://${socket}`], (said) => {
    const found = said.match(/listening on (http:\S+:(\d+)\/)/);
    return found ? { url: found[1], port: found[2] } : undefined;
  });

async function enter(browser, node, name) {
  const page = await open(browser, node.url);
  await submit(page, "#name", name);
  await says(page, "where", /^You are on node/);
  return page;
}

/** Waits until there are buttons for these, and for no others. */
const people = (page, ...expected) =>
  page.waitForFunction(
    (expected) => JSON.stringify([...document.querySelectorAll("#people button")].map((one) => one.textContent)) === expected,
    JSON.stringify(["all", ...expected]),
    { timeout: 20_000 },
  );

const line = (page, text) => page.locator("#log li", { hasText: text }).first().waitFor();

async function all(browser) {
  let redis = await startRedis();
  const nodes = [await startNode(1), await startNode(2), await startNode(3)];
  const ada = await enter(browser, nodes[0], "Ada");
  await says(ada, "links", "Other nodes: node 2 node 3");
  const bob = await enter(browser, nodes[1], "Bob");
  await people(ada, "Ada (you)", "Bob (node 2)");
  await people(bob, "Ada (node 1)", "Bob (you)");
  await line(ada, "Bob came, on node 2");
  await submit(bob, "#line", "größe");
  await line(ada, /^Bob: größe$/);
  await ada.click("#people button:text-is('Bob (node 2)')");
  await submit(ada, "#line", "only you");
  await line(bob, /^Ada: only you$/);
  const eve = await enter(browser, nodes[2], "Eve");
  await line(ada, "Eve came, on node 3");
  await close(eve);
  await line(ada, /^Eve left$/);
  await ada.screenshot(shot("cluster"));

  // A node is killed: who comes then sees who is known, and its people vanish. They go on when it is back, or at another one.
  await nodes[1].kill();
  await submit(ada, "#line", "are you there?");
  await line(ada, /are you there\?the other node does not answer/);
  await says(bob, "where", /^No connection. Next try in \d s.$/);
  await says(bob, "links", "Or go on at node 1 node 3");
  const zoe = await enter(browser, nodes[2], "Zoë");
  await people(zoe, "Ada (node 1)", "Zoë (you)");
  await line(ada, "Out of reach, with node 2: Bob");
  await people(ada, "Ada (you)", "Zoë (node 3)");
  await says(ada, "silent", "Nothing is heard for now of node 2.");
  for (const [page, name] of [[ada, "ada"], [bob, "bob"], [zoe, "zoe"]]) await page.screenshot(shot(`cluster-killed-${name}`));
  nodes[1] = await startNode(2, nodes[1].port);
  await says(bob, "where", "You are on node 2.");
  await people(bob, "Ada (node 1)", "Bob (you)", "Zoë (node 3)");
  await people(ada, "Ada (you)", "Bob (node 2)", "Zoë (node 3)");
  await says(ada, "silent", "");

  // Without Redis each node goes on alone, and says so.
  await redis.kill();
  await ada.click("#people button:text-is('all')");
  await submit(ada, "#line", "anybody?");
  await line(ada, /anybody\?only node 1 is sure to have it/);
  await people(ada, "Ada (you)");
  await says(ada, "silent", "Nothing is heard for now of node 2 and node 3.");
  await ada.setViewportSize(PHONE);
  await ada.screenshot(shot("cluster-without-redis"));
  redis = await startRedis();
  await people(ada, "Ada (you)", "Bob (node 2)", "Zoë (node 3)");
  await people(zoe, "Ada (node 1)", "Bob (node 2)", "Zoë (you)");
  await people(bob, "Ada (node 1)", "Bob (you)", "Zoë (node 3)");
  await submit(ada, "#line", "all again");
  await line(zoe, /^Ada: all again$/);
  await line(ada, /^You: all again$/);

  // On at another node, under the same name.
  await nodes[1].kill();
  await bob.click("#links a:text-is('node 3')");
  await says(bob, "where", "You are on node 3.");
  await line(zoe, "Bob came, on node 3");
  for (const page of [ada, bob, zoe]) await close(page);
  for (const node of [nodes[0], nodes[2]]) await node.kill();
  await redis.kill();
}

await withBrowser((browser) => test("a chat while nodes and Redis are killed", () => all(browser), 120_000));
rmSync(folder, { recursive: true });
finish();
