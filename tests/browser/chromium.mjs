// What the browser tests share: Chromium, the page, and a stand-in for the parties.
//
// `SELKIE_PAGE` is the address of a running demo. Without it, the page of web/dist is served from here and its worker is
// replaced by a stand-in that always reads a 7: enough for everything that concerns the page alone.

import { createServer } from "node:http";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const web = fileURLToPath(new URL("../../web/", import.meta.url));
const { chromium } = createRequire(join(web, "package.json"))("playwright-core");

/** The demo under test, if there is one. */
export const REAL = process.env.SELKIE_PAGE;

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

const CSP =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; " +
  "img-src 'self' data: blob:; connect-src 'self' ws://127.0.0.1:7000 ws://127.0.0.1:7001";

const CLUSTER = {
  server0: "ws://127.0.0.1:7000/client",
  server1: "ws://127.0.0.1:7001/client",
  producer: "127.0.0.1:7002",
  model: "mnist",
  demo: true,
  refused: {},
};

/** Where Chromium is, or a message that says how to get it. */
export function executable() {
  const found = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(
    (path) => path && existsSync(path),
  );
  if (!found) {
    throw new Error("The browser tests need Chromium: apt-get install chromium, or set CHROMIUM to its path.");
  }
  return found;
}

export const launch = () => chromium.launch({ executablePath: executable(), args: ["--no-sandbox"] });

/** The page to test: the running demo's, or one served from here. `close` ends the latter. */
export const site = async () => (REAL ? { url: REAL, close() {} } : served());

/** Serves the built page, the package under /pkg/ and an empty page as /blank. */
export async function served() {
  const server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://page").pathname);
    const headers = { "Content-Security-Policy": CSP, "X-Content-Type-Options": "nosniff" };
    if (path === "/cluster.json") {
      response.writeHead(200, { ...headers, "Content-Type": "application/json" }).end(JSON.stringify(CLUSTER));
      return;
    }
    if (path === "/blank") {
      response.writeHead(200, { ...headers, "Content-Type": TYPES[".html"] }).end("<!doctype html><title>blank</title>");
      return;
    }
    try {
      // The package and the compiled core as they are, too, for tests that call them from a page.
      const file = join(web, /^\/(pkg|wasm)\//.test(path) ? "." : "dist", path === "/" ? "index.html" : path);
      const bytes = await readFile(file);
      response.writeHead(200, { ...headers, "Content-Type": TYPES[extname(file)] ?? "application/octet-stream" }).end(bytes);
    } catch {
      response.writeHead(404, headers).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => server.close() };
}

/** Opens the page; collects everything the browser complains about in `page.complaints`. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && !/404/.test(message.text())) {
      page.complaints.push(message.text());
    }
  });
  if (!REAL) {
    const body = await readFile(new URL("stand-in.js", import.meta.url), "utf8");
    await context.route("**/assets/worker-*.js", (route) =>
      route.fulfill({ body, contentType: "text/javascript", headers: { "Content-Security-Policy": CSP } }),
    );
  }
  await page.goto(url);
  await page.waitForFunction(() => document.querySelectorAll("#examples button").length === 10);
  return page;
}

/** Draws strokes, given on a sheet of 280 by 280, with the mouse. */
export async function draw(page, strokes) {
  const box = await page.locator("#pad").boundingBox();
  const at = ([x, y]) => [box.x + (x / 280) * box.width, box.y + (y / 280) * box.height];
  for (const [first, ...rest] of strokes) {
    await page.mouse.move(...at(first));
    await page.mouse.down();
    for (const point of rest) {
      await page.mouse.move(...at(point));
    }
    await page.mouse.up();
  }
}

/** The digit that the page says, once it says one for the current drawing. */
export async function read(page, timeout = 20_000) {
  await page.waitForSelector(".answer:is([data-state=said], [data-state=wrong])", { timeout });
  if ((await page.getAttribute(".answer", "data-state")) === "wrong") {
    throw new Error(`the page says: ${await page.textContent("#status")}`);
  }
  return Number(await page.textContent("#digit"));
}

/** The 28 by 28 pixels of one of the page's canvases: red, green, blue, 784 times. */
export const pixels = (page, id) =>
  page.evaluate((id) => {
    const canvas = document.getElementById(id);
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return [...data].filter((_, i) => i % 4 < 3);
  }, id);

/** The drawings that the project measures itself with. */
export const digits = async () =>
  JSON.parse(await readFile(new URL("../digits/strokes.json", import.meta.url), "utf8"));
