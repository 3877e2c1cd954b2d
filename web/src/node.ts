// `selkie` in Node: the work is in this process.

import { open } from "./engine.js";
import { shipped } from "./files-node.js";
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
export const connect = (options: ConnectOptions): Promise<Client> => open(options, shipped);
