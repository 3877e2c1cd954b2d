// `npm run build`: the compiled core in three builds, its glue, the package in pkg/ and the page in dist/.
//
//   cargo → wasm-bindgen (our own `selkie-wasm-pack`) → wasm-opt → tsc → vite
//
// `npm run build -- --no-page` leaves the page out.

import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { copyFile, mkdir, readFile, rm, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const args = process.argv.slice(2);
if (args.some((arg) => arg !== "--no-page")) {
  console.error("usage: npm run build [-- --no-page]");
  process.exit(2);
}

const web = fileURLToPath(new URL("..", import.meta.url));
const root = fileURLToPath(new URL("../..", import.meta.url));
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
const glue = join(web, "wasm");
const pkg = join(web, "pkg");

/** The builds. A whole module is validated at once, so SIMD is a build of its own; JavaScript picks. */
const BUILDS = [
  { name: "client", flags: "", features: [] },
  { name: "client-simd", flags: "-C target-feature=+simd128", features: [] },
  { name: "all-roles", flags: "-C target-feature=+simd128", features: ["--features", "all-roles"] },
];

/** Runs one program; shows what it printed only if it fails. */
function run(program, args, environment = {}) {
  return new Promise((resolve, reject) => {
    const options = { cwd: root, env: { ...process.env, ...environment }, maxBuffer: 1 << 26 };
    execFile(program, args, options, (error, stdout, stderr) => {
      if (!error) {
        resolve();
      } else if (error.code === "ENOENT") {
        reject(new Error(`${program} is not installed, or not on the PATH`));
      } else {
        reject(new Error(`\n${stdout}${stderr}\n${program} ${args.join(" ")} failed`));
      }
    });
  });
}

async function step(name, work) {
  const began = performance.now();
  process.stdout.write(`${name.padEnd(28)}`);
  const note = (await work()) ?? "";
  console.log(`${((performance.now() - began) / 1000).toFixed(1).padStart(6)} s  ${note}`);
}

/** A program that an npm package brings along. */
function tool(name, bin = name) {
  const manifest = createRequire(join(web, "package.json")).resolve(`${name}/package.json`);
  const { bin: bins } = JSON.parse(readFileSync(manifest, "utf8"));
  return join(dirname(manifest), typeof bins === "string" ? bins : bins[bin]);
}

async function cargo({ name, flags, features }) {
  // Flags for the WebAssembly builds alone: in RUSTFLAGS they would rebuild everything else as well. Panic messages carry
  // source paths; those of the machine that built are nobody's business, and would make every build another file.
  const home = process.env.CARGO_HOME ?? join(homedir(), ".cargo");
  const paths = `--remap-path-prefix=${home}=/cargo --remap-path-prefix=${root}=/selkie`;
  await run(
    "cargo",
    ["build", "--quiet", "--locked", "-p", "selkie-wasm", "--profile", "wasm", "--target", "wasm32-unknown-unknown", ...features],
    { CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS: `${flags} ${paths}`.trim() },
  );
  await mkdir(join(glue, name), { recursive: true });
  await copyFile(join(target, "wasm32-unknown-unknown/wasm/selkie_wasm.wasm"), join(glue, name, "cargo.wasm"));
}

async function bind({ name }) {
  await run("cargo", ["run", "--quiet", "--locked", "-p", "selkie-wasm-pack", "--", join(glue, name, "cargo.wasm"), join(glue, name)]);
  await rm(join(glue, name, "cargo.wasm"));
}

async function optimise({ name, flags }) {
  const file = join(glue, name, "selkie_bg.wasm");
  const simd = flags.includes("simd128") ? ["--enable-simd"] : [];
  // What rustc 1.95 takes for granted in a WebAssembly engine.
  const baseline = ["bulk-memory", "mutable-globals", "nontrapping-float-to-int", "reference-types", "sign-ext", "multivalue"];
  const enable = baseline.map((feature) => `--enable-${feature}`);
  await run(process.execPath, [tool("binaryen", "wasm-opt"), "-O3", ...enable, ...simd, file, "-o", file]);
  const bytes = await readFile(file);
  return `${name}: ${kilo(bytes.length)}, ${kilo(gzipSync(bytes, { level: 9 }).length)} gzipped`;
}

const kilo = (bytes) => `${(bytes / 1000).toFixed(1)} kB`;

/** The client's two builds behind one glue, which must therefore be the same for both. */
async function collect() {
  const [one, other] = await Promise.all(
    ["client", "client-simd"].map((name) => readFile(join(glue, name, "selkie.js"), "utf8")),
  );
  if (one !== other) {
    throw new Error("the glue of the builds with and without SIMD differs: the package ships one for both");
  }
  await mkdir(join(pkg, "wasm"), { recursive: true });
  await copyFile(join(glue, "client/selkie.js"), join(pkg, "wasm/selkie.js"));
  await copyFile(join(glue, "client/selkie.d.ts"), join(pkg, "wasm/selkie.d.ts"));
  await copyFile(join(glue, "client/selkie_bg.wasm"), join(pkg, "wasm/client.wasm"));
  await copyFile(join(glue, "client-simd/selkie_bg.wasm"), join(pkg, "wasm/client-simd.wasm"));
}

async function build() {
  await stat(join(web, "node_modules")).catch(() => {
    throw new Error("web/node_modules is missing: run `npm ci` in web/ first");
  });
  await rm(pkg, { recursive: true, force: true });
  await rm(glue, { recursive: true, force: true });
  for (const build of BUILDS) {
    await step(`cargo ${build.name}`, () => cargo(build));
  }
  await step("glue", async () => {
    for (const build of BUILDS) {
      await bind(build);
    }
  });
  for (const build of BUILDS) {
    await step("wasm-opt", () => optimise(build));
  }
  await step("tsc", async () => {
    await collect();
    await run(process.execPath, [tool("typescript", "tsc"), "-p", web]);
  });
  if (!args.includes("--no-page")) {
    await step("vite", async () => {
      await run(process.execPath, [tool("typescript", "tsc"), "-p", join(web, "page")]);
      await run(process.execPath, [tool("vite"), "build", "--config", join(web, "vite.config.ts")]);
    });
  }
}

await build().catch((error) => {
  console.error(`\nbuild: ${error.message}`);
  process.exitCode = 1;
});
