// What each server holds of the drawing, and the slider that lays one sheet over the other.

import type { Local, Shares } from "selkie/local";

import { PIXELS, type Ramp, between, level, paint, ramp } from "./picture.js";

const SAYS = {
  empty: "Two sheets of noise. Every stroke makes new ones.",
  apart: "Two sheets of noise, new at every stroke. The drawing is in neither of them.",
  sliding: "Two sheets of noise, one sliding over the other. Still nothing.",
  emerging: "Where they overlap, this tab adds them, pixel by pixel, modulo 2⁶⁴.",
  joined: "Added, they are your drawing, exactly. The servers never meet like this.",
};

/** Up to here the slider moves the sheets; from here on it adds them. */
const OVERLAP = 0.5;

export class Skins {
  readonly #local: Local;
  readonly #pair = element("pair");
  readonly #slider = element<HTMLInputElement>("join");
  readonly #says = element("join-says");
  readonly #canvases = (["share0", "share1", "joined", "crop"] as const).map((id) => element<HTMLCanvasElement>(id));
  readonly #order = shuffled();
  #pixels: Float32Array | undefined;
  #shares: Shares;
  #sum: Float32Array;

  constructor(local: Local) {
    this.#local = local;
    this.#shares = local.split(new Float32Array(PIXELS));
    this.#sum = local.join(this.#shares);
    this.#slider.addEventListener("input", () => this.paint());
    this.paint();
  }

  /** Splits the drawing anew; without one, the blank sheet is split: that looks no different. */
  share(pixels: Float32Array | undefined): void {
    this.#pixels = pixels;
    this.#shares = this.#local.split(pixels ?? new Float32Array(PIXELS));
    this.#sum = this.#local.join(this.#shares);
    this.paint();
  }

  paint(): void {
    const [canvas0, canvas1, joined, crop] = this.#canvases as [
      HTMLCanvasElement,
      HTMLCanvasElement,
      HTMLCanvasElement,
      HTMLCanvasElement,
    ];
    const ramp0 = ramp("--skin0-low", "--skin0-high");
    const ramp1 = ramp("--skin1-low", "--skin1-high");
    const ink = ramp("--sheet", "--ink");
    const { share0, share1 } = this.#shares;
    paint(canvas0, (pixel) => between(ramp0, level(share0[pixel] ?? 0n)));
    paint(canvas1, (pixel) => between(ramp1, level(share1[pixel] ?? 0n)));
    paint(crop, (pixel) => between(ink, this.#pixels?.[pixel] ?? 0));

    const at = Number(this.#slider.value) / Number(this.#slider.max);
    const over = Math.min(1, at / OVERLAP);
    const added = Math.max(0, (at - OVERLAP) / (1 - OVERLAP));
    this.#pair.style.setProperty("--over", String(over));
    this.#pair.classList.toggle("over", over === 1);
    if (over === 1) {
      this.#join(joined, added, ink, ramp0, ramp1);
    }
    const says = this.#saying(at, added);
    if (this.#says.textContent !== says) {
      this.#says.textContent = says;
    }
  }

  /** The share of the pixels that `added` says shows the true sum; the others still show the two sheets. */
  #join(canvas: HTMLCanvasElement, added: number, ink: Ramp, ramp0: Ramp, ramp1: Ramp): void {
    const { share0, share1 } = this.#shares;
    paint(canvas, (pixel) => {
      if ((this.#order[pixel] ?? 0) < added * PIXELS) {
        return between(ink, Math.min(1, Math.max(0, this.#sum[pixel] ?? 0)));
      }
      const one = between(ramp0, level(share0[pixel] ?? 0n));
      const other = between(ramp1, level(share1[pixel] ?? 0n));
      return [mean(one[0], other[0]), mean(one[1], other[1]), mean(one[2], other[2])];
    });
  }

  #saying(at: number, added: number): string {
    if (at === 0) {
      return this.#pixels ? SAYS.apart : SAYS.empty;
    }
    if (added === 0) {
      return SAYS.sliding;
    }
    return added < 1 || !this.#pixels ? SAYS.emerging : SAYS.joined;
  }
}

const mean = (a: number, b: number): number => (a + b) / 2;

/** The pixels' numbers in the order in which the slider adds them: scattered, so that the digit appears everywhere at once. */
function shuffled(): Uint16Array {
  const order = Uint16Array.from({ length: PIXELS }, (_, i) => i);
  let state = 1;
  for (let i = PIXELS - 1; i > 0; i--) {
    state = (state * 48271) % 0x7fffffff; // for looks alone
    const j = state % (i + 1);
    [order[i], order[j]] = [order[j] ?? 0, order[i] ?? 0];
  }
  return order;
}

/** An element of the page. */
export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) {
    throw new Error(`the page has no element ${id}`);
  }
  return found as T;
}
