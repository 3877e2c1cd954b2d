// The compiled core's failures as errors. Its words are shown as they are.

import { type ErrorCode, type Party, SelkieError } from "./errors.js";
import { Failure } from "./wasm/selkie.js";

export function told(failure: unknown): unknown {
  if (!(failure instanceof Failure)) {
    return failure;
  }
  const { code, message, party } = failure;
  failure.free();
  return new SelkieError(code as ErrorCode, message, party as Party | undefined);
}

/** Calls the core. */
export function attempt<T>(work: () => T): T {
  try {
    return work();
  } catch (failure) {
    throw told(failure);
  }
}
