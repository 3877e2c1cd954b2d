// Where the parties are, and the way to ask them.

import { type Client, type Prediction, SelkieError, connect } from "selkie";

/** `/cluster.json`: what the page's host says about the parties. */
export interface Cluster {
  server0: string;
  server1: string;
  producer: string;
  model: string;
  demo: boolean;
  /** Why protocols are not offered, by their names; whoever runs the page need not say. */
  refused?: Record<string, string>;
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

  /** The protocols under which the model is deployed: first the one that runs unless another is picked. */
  async protocols(): Promise<string[]> {
    const { model } = this.#where;
    const models = await (await this.connect()).models();
    const parts = models.filter(({ name }) => name === model || name.startsWith(`${model}@`));
    return parts.sort((a, b) => a.name.length - b.name.length).map(({ protocol }) => protocol);
  }

  async predict(pixels: Float32Array, protocol: string | undefined): Promise<Prediction> {
    const client = await this.connect();
    try {
      return await client.predict(this.#where.model, pixels, protocol === undefined ? {} : { protocol });
    } catch (error) {
      if (!(error instanceof SelkieError) || error.code === "peer") {
        client.close();
        this.#client = undefined;
      }
      throw error;
    }
  }
}
