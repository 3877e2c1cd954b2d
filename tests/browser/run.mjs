// Runs the browser's tests against a demo of its own: `node tests/browser/run.mjs [path of selkie]`.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const selkie = process.argv[2] ?? `${root}target/debug/selkie`;

const demo = spawn(selkie, ["demo", "--port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
const gone = once(demo, "exit").then(([code]) => {
  throw new Error(`the demo ended with ${code} before it was ready`);
});
const stop = () => demo.kill("SIGTERM");
process.on("exit", stop);

const ready = (async () => {
  for await (const line of createInterface({ input: demo.stdout })) {
    const [, url] = /^ready (http:\S+)/.exec(line) ?? [];
    if (url) {
      return url;
    }
  }
})();
const late = new Promise((_, reject) => {
  setTimeout(() => reject(new Error("the demo was not ready within 60 s")), 60_000).unref();
});
const url = await Promise.race([ready, gone, late]);
gone.catch(() => {});
demo.stdout.resume();

const tests = spawn(process.execPath, ["--test", `${root}tests/browser/`], {
  stdio: "inherit",
  env: { ...process.env, SELKIE_PAGE: url.endsWith("/") ? url : `${url}/` },
});
const [code] = await once(tests, "exit");
stop();
process.exitCode = code ?? 1;
