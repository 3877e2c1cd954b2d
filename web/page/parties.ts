// Where the parties are, and the way to ask them.

import { type Client, type Prediction, SelkieError, connect } from "selkie";

/** `/cluster.json`: what the page's host says about the parties. */
export interface Cluster {
  server0: string;
  server1: string;
  producer: string;
  model: string;
  demo: boolean;
}

/** Asks the host of this page where the parties are. */
export async function cluster(): Promise<Cluster> {
  const response = await fetch("/cluster.json", { cache: "no-store" }).catch(() => undefined);
  if (!response?.ok) {
    throw new SelkieError(
      "peer",
      "This page's host does not say where the servers are (/cluster.json). Whoever runs it must start it with `selkie demo`, or provide that file.",
    );
  }
  return response.json();
}

/** A connection that is made when it is first needed, and anew after it has failed. */
export class Parties {
  readonly #where: Cluster;
  #client: Promise<Client> | undefined;

  constructor(where: Cluster) {
    this.#where = where;
  }

  connect(): Promise<Client> {
    this.#client ??= connect(this.#where).catch((error) => {
      this.#client = undefined;
      throw error;
    });
    return this.#client;
  }

  async predict(pixels: Float32Array): Promise<Prediction> {
    const client = await this.connect();
    try {
      return await client.predict(this.#where.model, pixels);
    } catch (error) {
      if (!(error instanceof SelkieError) || error.code === "peer") {
        client.close();
        this.#client = undefined;
      }
      throw error;
    }
  }
}
