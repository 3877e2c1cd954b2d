// The worker's end: one client, its two connections and its arithmetic, off the page's thread.

import { open } from "./engine.js";
import { shipped } from "./files.js";
import { type Call, type Reply, type Request, toFailure } from "./rpc.js";
import type { Client } from "./types.js";

const aborts = new Map<number, AbortController>();
let client: Client | undefined;

self.addEventListener("message", async ({ data }: MessageEvent<Request>) => {
  if ("abort" in data) {
    aborts.get(data.id)?.abort();
    return;
  }
  const { id, call } = data;
  const abort = new AbortController();
  aborts.set(id, abort);
  try {
    post({ id, value: await answer(call, abort.signal) });
  } catch (error) {
    post({ id, error: toFailure(error) });
  } finally {
    aborts.delete(id);
  }
});

async function answer(call: Call, signal: AbortSignal): Promise<unknown> {
  if (call[0] === "connect") {
    client = await open({ ...call[1], signal }, shipped);
    return undefined;
  }
  if (!client) {
    throw new Error("the worker was called before it was connected");
  }
  switch (call[0]) {
    case "models":
      return client.models();
    case "predict":
      return client.predict(call[1], call[2], { ...call[3], signal });
    case "split":
      return client.split(call[1], call[2]);
    case "join":
      return client.join(call[1], call[2]);
  }
}

function post(reply: Reply): void {
  self.postMessage(reply);
}
