import { readFile } from "node:fs/promises";

import type { Shipped } from "./wasm.js";

/** The builds as files beside this one, read from disk: Node's `fetch` knows no `file:` URLs. */
export const shipped: Shipped = (simd) =>
  readFile(new URL(simd ? "./wasm/client-simd.wasm" : "./wasm/client.wasm", import.meta.url));
