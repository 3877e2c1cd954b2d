import { type ErrorCode, type Party, SelkieError } from "./errors.js";
import type { ConnectOptions, PredictOptions, Shares, WasmSource } from "./types.js";

/** What crosses from a page to its worker: everything of `ConnectOptions` that can be copied. */
export type Connect = Pick<ConnectOptions, "server0" | "server1" | "protocol"> & { wasm?: WasmSource };

/** The calls a worker answers. */
export type Call =
  | ["connect", Connect]
  | ["models"]
  | ["predict", string, Float32Array, Omit<PredictOptions, "signal">]
  | ["split", string, Float32Array]
  | ["join", string, Shares];

/** To the worker: a call under a number of the caller's choice, or the wish to give one up. */
export type Request = { id: number; call: Call } | { id: number; abort: true };

/** From the worker: the answer to one call. */
export type Reply = { id: number; value: unknown } | { id: number; error: Failure };

/** An error in a form that can be copied between threads: the class would be lost on the way. */
export interface Failure {
  code?: ErrorCode;
  party?: Party | undefined;
  name: string;
  message: string;
}

export function toFailure(error: unknown): Failure {
  if (error instanceof SelkieError) {
    return { code: error.code, party: error.party, name: error.name, message: error.message };
  }
  if (error instanceof Error) {
    return { name: error.name, message: error.message };
  }
  return { name: "Error", message: String(error) };
}

export function fromFailure(failure: Failure): Error {
  if (failure.code) {
    return new SelkieError(failure.code, failure.message, failure.party);
  }
  if (failure.name === "AbortError") {
    return new DOMException(failure.message, failure.name);
  }
  return Object.assign(new Error(failure.message), { name: failure.name });
}
