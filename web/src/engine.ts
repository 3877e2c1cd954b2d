// The client itself, on whichever thread it is opened: two sockets, and the compiled core that drives them.

import { type Party, usage } from "./errors.js";
import { attempt, told } from "./failure.js";
import type { Client, ConnectOptions, Model, PredictOptions, Prediction, Shares, WebSocketConstructor } from "./types.js";
import { type Shipped, load } from "./wasm.js";
import type { Answer, Client as Inner, Model as InnerModel } from "./wasm/selkie.js";

/** A server that has not said a word by then is taken to be absent. */
const ABSENT_MS = 10_000;

/** Connects in this thread. */
export async function open(options: ConnectOptions, shipped: Shipped): Promise<Client> {
  const { server0, server1, protocol, signal, wasm } = options;
  const [url0, url1] = [address("server0", server0), address("server1", server1)];
  const Socket = options.WebSocket ?? (globalThis.WebSocket as WebSocketConstructor | undefined);
  if (!Socket) {
    throw usage(
      'This environment has no WebSocket. In Node before 22, install the package "ws" and pass it: connect({ …, WebSocket }).',
    );
  }
  signal?.throwIfAborted();
  const core = await load(shipped, wasm);
  signal?.throwIfAborted();
  const dial = (party: Party, url: string): WebSocket => {
    try {
      const socket = new Socket(url, core.subprotocol()) as WebSocket;
      socket.binaryType = "arraybuffer";
      return socket;
    } catch (error) {
      // A page that came by https may open wss: alone, for one.
      throw usage(`${party}'s address ${url} cannot be opened from here: ${error instanceof Error ? error.message : error}`);
    }
  };
  const inner = new core.Client(dial("server0", url0), dial("server1", url1), url0, url1, protocol);
  const late = setTimeout(() => inner.late(), ABSENT_MS);
  try {
    // A first question shows that both are there and speak this language.
    await settled(signal, (resolve, reject) => inner.models(resolve, reject));
  } catch (error) {
    inner.close();
    throw error;
  } finally {
    clearTimeout(late);
  }
  return new Engine(inner);
}

class Engine implements Client {
  readonly #inner: Inner;

  constructor(inner: Inner) {
    this.#inner = inner;
  }

  async models(): Promise<Model[]> {
    const models = await settled<InnerModel[]>(undefined, (resolve, reject) => this.#inner.models(resolve, reject));
    return models.map((model) => {
      const { name, protocol, inputShape, outputShape } = model;
      model.free();
      return { name, protocol, inputShape: [...inputShape], outputShape: [...outputShape] };
    });
  }

  async predict(model: string, input: Float32Array, { batch = 1, protocol, signal }: PredictOptions = {}): Promise<Prediction> {
    signal?.throwIfAborted();
    if (!Number.isInteger(batch) || batch < 1 || batch > 0xffff) {
      throw usage(`A batch is a whole number from 1 to 65535, not ${batch}.`);
    }
    const began = performance.now();
    let session: string | undefined;
    try {
      const answer = await settled<Answer>(signal, (resolve, reject) => {
        session = this.#inner.predict(model, floats(input), batch, protocol, resolve, reject);
      });
      const { values, shape, rounds, onlineBytes, offlineBytes, clientBytes } = answer;
      const costs = { rounds, onlineBytes, offlineBytes, clientBytes };
      const prediction = { values, shape: [...shape], protocol: answer.protocol, ...costs, session: answer.session };
      answer.free();
      return { ...prediction, ms: performance.now() - began };
    } catch (error) {
      if (signal?.aborted && session !== undefined) {
        this.#inner.abandon(session);
      }
      throw error;
    }
  }

  async split(model: string, input: Float32Array): Promise<Shares> {
    const values = floats(input);
    await this.#describe(model);
    return attempt(() => {
      const shares = this.#inner.split(model, values);
      const { share0, share1 } = shares;
      shares.free();
      return { share0, share1 };
    });
  }

  async join(model: string, { share0, share1 }: Shares): Promise<Float32Array> {
    await this.#describe(model);
    return attempt(() => this.#inner.join(model, share0, share1));
  }

  close(): void {
    this.#inner.close();
  }

  #describe(model: string): Promise<void> {
    return settled(undefined, (resolve, reject) => this.#inner.describe(model, resolve, reject));
  }
}

/** A promise out of the core's pair of callbacks. */
function settled<T>(
  signal: AbortSignal | undefined,
  begin: (resolve: (value: T) => void, reject: (failure: unknown) => void) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal?.reason);
    const done = <V>(then: (value: V) => void) => {
      return (value: V): void => {
        signal?.removeEventListener("abort", abort);
        then(value);
      };
    };
    signal?.addEventListener("abort", abort, { once: true });
    try {
      begin(
        done(resolve),
        done((failure) => reject(told(failure))),
      );
    } catch (failure) {
      done(reject)(told(failure));
    }
  });
}

function floats(input: unknown): Float32Array {
  if (input instanceof Float32Array) {
    return input;
  }
  throw usage("The input must be a Float32Array: all values of all samples, one after another.");
}

function address(party: Party, url: unknown): string {
  if (typeof url === "string" && URL.canParse(url) && /^wss?:$/.test(new URL(url).protocol)) {
    const parsed = new URL(url);
    if (parsed.pathname === "/") {
      // Where parties listen for clients, unless a proxy puts them elsewhere.
      parsed.pathname = "/client";
    }
    return parsed.href;
  }
  throw usage(`connect() needs ${party}'s address, such as "wss://${party}.example", but was given ${JSON.stringify(url)}.`);
}
