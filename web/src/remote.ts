// The page's end of the worker: every call becomes a message, every answer a resolved promise.

import { SelkieError } from "./errors.js";
import { type Call, type Connect, type Reply, type Request, fromFailure } from "./rpc.js";
import type { Client, ConnectOptions, Model, PredictOptions, Prediction, Shares, WasmSource } from "./types.js";

interface Waiting {
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

class Remote implements Client {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;
  #ended: Error | undefined;

  constructor(worker: Worker) {
    this.#worker = worker;
    worker.addEventListener("message", ({ data }: MessageEvent<Reply>) => {
      const waiting = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if ("error" in data) {
        waiting?.reject(fromFailure(data.error));
      } else {
        waiting?.resolve(data.value);
      }
    });
    worker.addEventListener("error", (event) => {
      this.#end(new Error(`Selkie's worker stopped: ${event.message || "its script could not be loaded"}`));
    });
  }

  call(call: Call, signal?: AbortSignal): Promise<unknown> {
    if (signal?.aborted) {
      return Promise.reject(signal.reason);
    }
    if (this.#ended) {
      return Promise.reject(this.#ended);
    }
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        this.#waiting.delete(id);
        this.#post({ id, abort: true });
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", abort, { once: true });
      const settle =
        <T>(then: (value: T) => void) =>
        (value: T): void => {
          signal?.removeEventListener("abort", abort);
          then(value);
        };
      this.#waiting.set(id, { resolve: settle(resolve), reject: settle(reject) });
      this.#post({ id, call });
    });
  }

  models(): Promise<Model[]> {
    return this.call(["models"]) as Promise<Model[]>;
  }

  predict(model: string, input: Float32Array, { signal, ...options }: PredictOptions = {}): Promise<Prediction> {
    return this.call(["predict", model, input, options], signal) as Promise<Prediction>;
  }

  split(model: string, input: Float32Array): Promise<Shares> {
    return this.call(["split", model, input]) as Promise<Shares>;
  }

  join(model: string, shares: Shares): Promise<Float32Array> {
    return this.call(["join", model, shares]) as Promise<Float32Array>;
  }

  close(): void {
    this.#end(new SelkieError("usage", "The client was closed; connect again."));
  }

  #post(request: Request): void {
    this.#worker.postMessage(request);
  }

  #end(error: Error): void {
    this.#ended ??= error;
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) {
      reject(this.#ended);
    }
    this.#waiting.clear();
  }
}

/** Opens a client in the given worker. */
export async function openIn(worker: Worker, options: ConnectOptions): Promise<Client> {
  const remote = new Remote(worker);
  const { server0, server1, protocol, wasm, signal } = options;
  try {
    const connect: Connect = { server0, server1 };
    if (protocol !== undefined) {
      connect.protocol = protocol;
    }
    if (wasm !== undefined) {
      connect.wasm = await copyable(wasm);
    }
    await remote.call(["connect", connect], signal);
  } catch (error) {
    remote.close();
    throw error;
  }
  return remote;
}

/** A response cannot be sent to a worker, and a relative URL would mean another file there. */
async function copyable(wasm: WasmSource): Promise<WasmSource> {
  if (wasm instanceof Response) {
    return wasm.arrayBuffer();
  }
  return typeof wasm === "string" || wasm instanceof URL ? new URL(wasm, location.href).href : wasm;
}
