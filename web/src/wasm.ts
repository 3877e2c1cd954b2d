import initialise, * as exports from "./wasm/selkie.js";

import { usage } from "./errors.js";
import type { WasmSource } from "./types.js";

/** The compiled core, once it is loaded. */
export type Core = typeof exports;

/** Finds one of the two builds that the package ships. */
export type Shipped = (simd: boolean) => Promise<WasmSource>;

/** The smallest module with a 128-bit instruction: an engine without them does not validate it. */
const PROBE = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
);

let core: Promise<Core> | undefined;

/** Loads the core, once; later calls, whatever their source, get the same one. A failure may be tried again. */
export function load(shipped: Shipped, source?: WasmSource): Promise<Core> {
  core ??= (async () => {
    if (typeof WebAssembly === "undefined") {
      throw usage("This environment has no WebAssembly, which Selkie computes with; use a current browser or Node.");
    }
    const from = source ?? (await shipped(WebAssembly.validate(PROBE)));
    await initialise({ module_or_path: from });
    return exports;
  })().catch((error) => {
    core = undefined;
    throw error;
  });
  return core;
}
