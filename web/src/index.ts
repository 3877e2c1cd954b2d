// `selkie` in a browser: the work is in a Web Worker, so that no page ever stutters on it.

import { open } from "./engine.js";
import { shipped } from "./files.js";
import { openIn } from "./remote.js";
import type { Client, ConnectOptions } from "./types.js";

export { type ErrorCode, type Party, SelkieError } from "./errors.js";
export type {
  Client,
  ConnectOptions,
  Model,
  PredictOptions,
  Prediction,
  Shares,
  WasmSource,
  WebSocketConstructor,
} from "./types.js";

/** Connects to both servers. Resolves once both have said which models they serve. */
export async function connect(options: ConnectOptions): Promise<Client> {
  // A WebSocket class cannot be handed to another thread; and a worker may be unable to start workers.
  if (options.worker === false || options.WebSocket || typeof Worker === "undefined") {
    return open(options, shipped);
  }
  return openIn(new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "selkie" }), options);
}
