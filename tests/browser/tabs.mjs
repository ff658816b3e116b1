// What the tests of pages share: tabs that note what a page must not do, and what is asked of every page.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { PATIENCE } from "./harness.mjs";

const SHOTS = join(process.env.CARGO_TARGET_DIR ?? "target", "test-logs/browser");
export const PHONE = { width: 390, height: 844 };
export const DESKTOP = { width: 1280, height: 800 };
const LOST = /^WebSocket connection to .* failed/; // what Chromium itself says of a server that is gone

mkdirSync(SHOTS, { recursive: true });

/** A tab, which notes what a page must not do: errors, and what the policy forbids. */
export async function open(browser, url, options) {
  const context = await browser.newContext({ viewport: DESKTOP, ignoreHTTPSErrors: true, ...options });
  context.setDefaultTimeout(PATIENCE);
  await context.addInitScript(() => {
    addEventListener("securitypolicyviolation", (e) => console.error(`${e.effectiveDirective} forbids ${e.blockedURI}`));
  });
  return tab(context, url);
}

export async function tab(context, url) {
  const page = await context.newPage();
  page.problems = [];
  page.on("console", (message) => message.type() === "error" && page.problems.push(message.text()));
  page.on("pageerror", (error) => page.problems.push(String(error)));
  await page.goto(url);
  return page;
}

/** Ends it. It may have had only those problems that are like `expected`. */
export async function close(page, expected = LOST) {
  const problems = page.problems.filter((text) => !expected.test(text));
  await page.context().close();
  assert.deepEqual(problems, []);
}

/** Waits until the text of an element is this, or is like this. */
export function says(page, id, expected) {
  const pattern = expected instanceof RegExp ? expected.source : `^${expected.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}$`;
  return page.waitForFunction(
    ([id, pattern]) => new RegExp(pattern).test(document.getElementById(id).textContent.trim()),
    [id, pattern],
  );
}

/** Fills in a field, and presses Enter in it. */
export async function submit(page, field, text) {
  await page.fill(field, text);
  await page.press(field, "Enter");
}

export const shot = (name) => ({ path: join(SHOTS, `${name}.png`), animations: "disabled" });

/** The policy is not only there: it is obeyed. */
export async function policy(page) {
  const attempts = {
    "style-src-elem": () => document.head.append(Object.assign(document.createElement("style"), { textContent: "* {}" })),
    "require-trusted-types-for": () => (document.createElement("p").innerHTML = "<b>x</b>"),
    "connect-src": () => new WebSocket("ws://localhost:1/"),
    "script-src-elem": () => import("http://localhost:1/"),
    "base-uri": () => document.head.append(Object.assign(document.createElement("base"), { href: "http://localhost:1/" })),
    "form-action": () => document.body.appendChild(document.createElement("form")).submit(),
    "frame-src": () => document.body.append(Object.assign(document.createElement("iframe"), { src: "http://localhost:1/" })),
  };
  for (const [directive, attempt] of Object.entries(attempts)) {
    const forbidden = page.waitForEvent("console", (message) => message.text().startsWith(`${directive} forbids`));
    await page.evaluate(attempt).catch(() => {}); // some of them throw
    await forbidden;
  }
  const header = (await page.request.get(page.url())).headers()["content-security-policy"];
  assert.match(header, /frame-ancestors 'none'/); // which only another page could try
  page.problems = [];
}

/** In the page: the texts whose contrast is below 4.5. */
export function faint() {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => {
    const [r, g, b] = rgba(color).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => (!e || rgba(getComputedStyle(e).backgroundColor)[3] === 255 ? e : behind(e.parentElement));
  const shown = [...document.querySelectorAll("body *")].filter(
    (e) => e.checkVisibility() && !e.disabled && [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim()));
  if (shown.length < 30) throw new Error(`only ${shown.length} texts`);
  return shown.flatMap((e) => {
    const both = [getComputedStyle(e).color, getComputedStyle(behind(e) ?? document.documentElement).backgroundColor];
    const [dark, light] = both.map(luminance).sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05) < 4.5 ? [`${e.outerHTML.slice(0, 80)}: ${both.join(" on ")}`] : [];
  });
}

