// The package as its users get it: packed, installed from the tarball, imported in Node, bundled, and checked by two linters.
// Needs `npm run build` first.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const web = fileURLToPath(new URL("..", import.meta.url));
const require = createRequire(join(web, "package.json"));

let home;
let tarball;

/** Runs a program; what it prints on both streams is in the error if it fails. */
function run(program, args, cwd = home) {
  try {
    return execFileSync(program, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    throw new Error(`${program} ${args.join(" ")}\n${error.stdout}${error.stderr}`);
  }
}

/** Runs a module that stands where a user's would, beside the installed package. */
async function asUser(name, source) {
  await writeFile(join(home, name), source);
  return run(process.execPath, [name]).trim();
}

/** The file of a development tool's command. */
function bin(name, command) {
  const manifest = join(web, "node_modules", name, "package.json");
  return join(dirname(manifest), require(manifest).bin[command]);
}

before(async () => {
  assert.ok(existsSync(join(web, "pkg/index.js")), "web/pkg is missing: run `npm run build` in web/ first");
  home = await mkdtemp(join(tmpdir(), "selkie-package-"));
  run("npm", ["pack", "--pack-destination", home], web);
  tarball = join(home, `selkie-${require("./package.json").version}.tgz`);
  await writeFile(join(home, "package.json"), JSON.stringify({ name: "user", private: true, type: "module" }));
  run("npm", ["install", "--offline", "--no-audit", "--no-fund", tarball]);
});

after(() => rm(home, { recursive: true, force: true }));

test("it carries the compiled core, its types and nothing of the sources", async () => {
  const files = await readdir(join(home, "node_modules/selkie"), { recursive: true });
  for (const file of ["pkg/index.js", "pkg/index.d.ts", "pkg/node.js", "pkg/worker.js", "pkg/wasm/client.wasm", "pkg/wasm/client-simd.wasm"]) {
    assert.ok(files.includes(file), file);
  }
  assert.deepEqual(files.filter((file) => /\.ts$/.test(file) && !/\.d\.ts$/.test(file)), []);
  assert.ok(!files.some((file) => /^(src|page|tests|node_modules)/.test(file)));
});

test("Node imports it, splits and joins", async () => {
  const out = await asUser(
    "split.mjs",
    `import { local } from "selkie/local";
     const { split, join } = await local();
     const input = Float32Array.from({ length: 784 }, (_, i) => Math.round((i / 784) * 65536) / 65536);
     const [one, two] = [split(input), split(input)];
     const same = (a, b) => a.every((x, i) => x === b[i]);
     console.log(same(join(one), input), same(join(two), input), same(one.share0, two.share0), same(one.share1, two.share1));`,
  );
  assert.equal(out, "true true false false");
});

test("an address that is none is the caller's to mend, before anything is opened", async () => {
  const out = await asUser(
    "address.mjs",
    `import { connect, SelkieError } from "selkie";
     const error = await connect({ server0: "example", server1: "ws://127.0.0.1:1" }).catch((error) => error);
     console.log(error instanceof SelkieError, error.code, error.message);`,
  );
  assert.match(out, /^true usage .*server0's address.*"example"/);
});

test("Vite bundles it: one file for each build of the core, and the worker", async () => {
  await writeFile(join(home, "index.html"), `<script type="module" src="./app.js"></script>`);
  await writeFile(join(home, "app.js"), `import { connect } from "selkie";\nglobalThis.selkie = connect;\n`);
  run(process.execPath, [bin("vite", "vite"), "build", "--logLevel", "warn"]);
  const files = await readdir(join(home, "dist/assets"));
  assert.equal(files.filter((file) => /^client-simd.*\.wasm$/.test(file)).length, 1, String(files));
  assert.equal(files.filter((file) => /\.wasm$/.test(file)).length, 2, String(files));
  assert.equal(files.filter((file) => /^worker.*\.js$/.test(file)).length, 1, String(files));
  const app = files.find((file) => /^index.*\.js$/.test(file));
  assert.doesNotMatch(await readFile(join(home, "dist/assets", app), "utf8"), /node:fs/);
});

test("publint has nothing to say", () => {
  run(process.execPath, [bin("publint", "publint"), "--strict", tarball]);
});

test("its types are right", () => {
  const ignore = ["./client.wasm", "./client-simd.wasm", "./worker"];
  run(process.execPath, [bin("@arethetypeswrong/cli", "attw"), tarball, "--profile", "esm-only", "--exclude-entrypoints", ...ignore]);
});

test("a strict TypeScript program compiles against them", async () => {
  await writeFile(
    join(home, "user.ts"),
    `import { type Prediction, SelkieError, connect } from "selkie";
     import { local } from "selkie/local";
     export async function ask(): Promise<Prediction> {
       const client = await connect({ server0: "wss://a.example", server1: "wss://b.example", WebSocket });
       const pixels = (await local()).rasterise([[[1, 2], [3, 4]]]) ?? new Float32Array(784);
       return client.predict("mnist", pixels, { signal: AbortSignal.timeout(1000) });
     }
     ask().catch((error) => error instanceof SelkieError && error.code === "peer" && error.party === "server1");`,
  );
  const strict = ["--strict", "--noEmit", "--skipLibCheck", "false", "--target", "es2022", "--lib", "es2022,dom", "--types", ""];
  for (const resolution of ["nodenext", "bundler"]) {
    const module = resolution === "bundler" ? "esnext" : "nodenext";
    run(process.execPath, [bin("typescript", "tsc"), ...strict, "--module", module, "--moduleResolution", resolution, "user.ts"]);
  }
});

test("the lockfile names no registry", async () => {
  assert.doesNotMatch(await readFile(join(web, "package-lock.json"), "utf8"), /"resolved"/);
});
