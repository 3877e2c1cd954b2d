/** What the compiled core can be loaded from. */
export type WasmSource = URL | string | Response | ArrayBuffer | Uint8Array<ArrayBuffer> | WebAssembly.Module;

/** Anything with a browser's WebSocket interface, such as the package `ws` exports. */
export type WebSocketConstructor = new (
  url: string,
  protocol: string,
) => {
  binaryType: string;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(): void;
};

export interface ConnectOptions {
  /** Where server0 listens for clients: `wss://…`, or `ws://` on this machine. */
  server0: string;
  /** Where server1 listens for clients. Its operator must not be server0's. */
  server1: string;
  /** Picks among the protocols under which a model is deployed; without it, the servers' default. */
  protocol?: string;
  /** Gives the connecting up; once connected, it has no effect. */
  signal?: AbortSignal;
  /** Where there is no global `WebSocket` (Node before 22): the constructor to use. */
  WebSocket?: WebSocketConstructor;
  /** The WebAssembly module, where the package's own file cannot be fetched: a URL, a response, bytes or a compiled module. */
  wasm?: WasmSource;
  /** `false` computes on the calling thread. By default a browser does the work in a Web Worker. */
  worker?: boolean;
}

/** A model that both servers serve. */
export interface Model {
  name: string;
  /** The protocol under which it is deployed. */
  protocol: string;
  /** The shape of one sample, such as `[1, 28, 28]`. */
  inputShape: number[];
  /** The shape of one answer, such as `[10]`. */
  outputShape: number[];
}

export interface PredictOptions {
  /** How many samples `values` holds, one after another; 1 unless told. */
  batch?: number;
  /** Picks among the protocols under which the model is deployed, for this prediction; without it, what `connect` was told. */
  protocol?: string;
  /** Gives this prediction up. */
  signal?: AbortSignal;
}

export interface Prediction {
  /** The answers, one after another. */
  values: Float32Array;
  /** `[batch, …]`. */
  shape: number[];
  /** The protocol that ran. */
  protocol: string;
  /** From the call to the answer. */
  ms: number;
  /** The longest chain of dependent messages among the three parties. */
  rounds: number;
  /** Payload among the three parties from the inputs' arrival on. */
  onlineBytes: number;
  /** Payload that the crypto producer dealt ahead. */
  offlineBytes: number;
  /** Payload between this client and the servers. */
  clientBytes: number;
  /** The session's id, to find it in the operators' logs. */
  session: string;
}

/** What each server holds of one input. Either alone is uniformly random. */
export interface Shares {
  share0: BigUint64Array;
  share1: BigUint64Array;
}

export interface Client {
  /** The models that both servers serve: one under several protocols is called `NAME`, and `NAME@PROTOCOL` for each further one. */
  models(): Promise<Model[]>;
  /** Asks the servers for a prediction without showing them the input. */
  predict(model: string, input: Float32Array, options?: PredictOptions): Promise<Prediction>;
  /** Splits an input as `predict` would, with fresh randomness at every call, and sends nothing. */
  split(model: string, input: Float32Array): Promise<Shares>;
  /** Puts the two shares of an input together, exactly. */
  join(model: string, shares: Shares): Promise<Float32Array>;
  /** Closes both connections. Predictions under way fail. */
  close(): void;
}

/** The points of one stroke, x and y, on a canvas of 280 by 280. */
export type Stroke = readonly (readonly [number, number])[];

/** A network whose weights are public, evaluated in clear on this machine. */
export interface Clear {
  /** The network's answer for one sample, before any softmax. */
  logits(input: Float32Array): Float32Array;
  /** Frees the weights. */
  free(): void;
}

/** Functions that compute on the calling thread and send nothing anywhere. */
export interface Local {
  /** The 784 pixels, 0 to 1, prepared as MNIST's were; nothing if the drawing is blank. */
  rasterise(strokes: readonly Stroke[]): Float32Array | undefined;
  /** Splits values into two shares of 64-bit integers, with fresh randomness at every call. */
  split(values: Float32Array): Shares;
  /** Puts two such shares together, exactly. */
  join(shares: Shares): Float32Array;
  /** Reads a network in Selkie's own format. */
  load(bytes: Uint8Array): Clear;
}
