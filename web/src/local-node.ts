// `selkie/local` in Node.

import { face } from "./core.js";
import { shipped } from "./files-node.js";
import type { Local, WasmSource } from "./types.js";
import { load } from "./wasm.js";

export type { Clear, Local, Shares, Stroke, WasmSource } from "./types.js";

/** Loads the compiled core into this thread. */
export const local = async (wasm?: WasmSource): Promise<Local> => face(await load(shipped, wasm));
