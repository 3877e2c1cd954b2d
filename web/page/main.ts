// The page: a drawing, the two sheets of noise the servers get of it, and the answer.

import { type Clear, local } from "selkie/local";

import { Answer } from "./answer.js";
import { offer } from "./examples.js";
import { Pad } from "./pad.js";
import { Parties, cluster } from "./parties.js";
import { Protocols } from "./protocols.js";
import { Skins, element } from "./skins.js";

/** A pause this long ends a drawing, as far as asking is concerned. */
const PAUSE_MS = 350;
/** The sheets change at most so often while the pen moves: flicker is no pleasure, and for some people a danger. */
const RESHARE_MS = 400;

const answer = new Answer(() => void start());
const protocols = new Protocols(() => {
  answer.stale();
  if (pixels) {
    void ask();
  }
});
let parties: Parties | undefined;
let clear: Clear | undefined;
let refused: Record<string, string> = {};

async function start(): Promise<void> {
  try {
    if (!parties) {
      answer.none("Looking for the servers…");
      const where = await cluster();
      refused = where.refused ?? {};
      parties = new Parties(where);
      element("where-server0").textContent = host(where.server0);
      element("where-server1").textContent = host(where.server1);
      element("where-producer").textContent = host(where.producer);
      document.body.classList.toggle("demo", where.demo);
    }
    protocols.offer(await parties.protocols(), refused);
    if (pixels) {
      await ask();
    } else {
      answer.none("Both servers are ready.");
    }
  } catch (error) {
    answer.wrong(error);
  }
}

const here = await local();
const skins = new Skins(here);
let pixels: Float32Array | undefined;
let shared = 0;
let pause = 0;
let asking = false;
let again = false;

const pad = new Pad(element<HTMLCanvasElement>("pad"), {
  moved() {
    clearTimeout(pause);
    drawn();
    if (performance.now() - shared > RESHARE_MS) {
      reshare();
    }
  },
  ended() {
    clearTimeout(pause);
    drawn();
    reshare();
    if (pixels) {
      pause = window.setTimeout(() => void ask(), PAUSE_MS);
    } else {
      answer.none(pad.strokes.length ? "There is too little ink to read. Draw a digit." : "The sheet is blank. Draw a digit.");
    }
  },
});

function drawn(): void {
  const any = pad.strokes.length > 0;
  answer.stale();
  document.body.classList.toggle("drawn", any);
  element<HTMLButtonElement>("clear").disabled = !any;
}

function reshare(): void {
  pixels = here.rasterise(pad.strokes);
  skins.share(pixels);
  shared = performance.now();
}

/** Asks for the drawing as it is; when it changes meanwhile, asks again and shows only the last answer. */
async function ask(): Promise<void> {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  try {
    do {
      again = false;
      const input = pixels;
      if (!input || !parties) {
        break;
      }
      answer.asking();
      const protocol = protocols.picked;
      const prediction = await parties.predict(input, protocol);
      protocols.tried(prediction);
      const expected = (await inClear())?.logits(input);
      if (pixels === input && protocols.picked === protocol) {
        answer.said(prediction, expected);
      }
    } while (again);
  } catch (error) {
    answer.wrong(error);
  } finally {
    asking = false;
  }
}

/** The demo's network, whose weights are public, to compare with; a page without one compares nothing. */
async function inClear(): Promise<Clear | undefined> {
  if (!clear) {
    const response = await fetch("/demo/model.bin").catch(() => undefined);
    if (response?.ok) {
      clear = here.load(new Uint8Array(await response.arrayBuffer()));
    }
  }
  return clear;
}

function host(url: string): string {
  return URL.canParse(url) ? new URL(url).host : url;
}

element("clear").addEventListener("click", () => {
  pad.clear();
  element("pad").focus();
});
offer(element("examples"), (strokes) => pad.draw(strokes));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  pad.paint();
  skins.paint();
});
await start();
