// The sheet one draws on: pointer events in, strokes on a canvas of 280 by 280 out.

import type { Stroke } from "selkie/local";

/** The side of the sheet in the strokes' own coordinates, whatever its size on the screen. */
export const SIDE = 280;
const PEN = 18;

type Points = [number, number][];

export interface PadEvents {
  /** Ink was added; the stroke goes on. */
  moved(): void;
  /** A stroke has ended, or the drawing was replaced: it may be read now. */
  ended(): void;
}

export class Pad {
  readonly #canvas: HTMLCanvasElement;
  readonly #context: CanvasRenderingContext2D;
  readonly #events: PadEvents;
  #strokes: Points[] = [];
  #pointer: number | undefined;
  #replay = 0;

  constructor(canvas: HTMLCanvasElement, events: PadEvents) {
    const context = canvas.getContext("2d");
    if (!context) {
      throw new Error("This browser cannot draw on a canvas.");
    }
    this.#canvas = canvas;
    this.#context = context;
    this.#events = events;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", (event) => this.#up(event));
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  get strokes(): readonly Stroke[] {
    return this.#strokes;
  }

  /** An empty sheet. */
  clear(): void {
    this.#stop();
    this.#strokes = [];
    this.paint();
    this.#events.ended();
  }

  /** Draws the given strokes anew, as a hand would, or at once for those who want no motion. */
  draw(strokes: readonly Stroke[]): void {
    this.#stop();
    this.#strokes = [];
    const points = strokes.flatMap((stroke, s) => stroke.map(([x, y]) => ({ s, x, y })));
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const each = still ? points.length : Math.max(1, Math.ceil(points.length / 28));
    let at = 0;
    const step = (): void => {
      for (const { s, x, y } of points.slice(at, at + each)) {
        (this.#strokes[s] ??= []).push([x, y]);
      }
      at += each;
      this.paint();
      if (at < points.length) {
        this.#events.moved();
        this.#replay = requestAnimationFrame(step);
      } else {
        this.#events.ended();
      }
    };
    step();
  }

  /** Paints everything, at the screen's resolution and in the scheme's ink. */
  paint(): void {
    const { width, height } = this.#canvas.getBoundingClientRect();
    const dots = Math.max(1, window.devicePixelRatio);
    this.#canvas.width = Math.round(width * dots);
    this.#canvas.height = Math.round(height * dots);
    const context = this.#context;
    context.scale(this.#canvas.width / SIDE, this.#canvas.height / SIDE);
    context.strokeStyle = getComputedStyle(this.#canvas).color;
    context.lineWidth = PEN;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of this.#strokes) {
      const [first, ...rest] = stroke;
      if (!first) {
        continue;
      }
      let [x, y] = first;
      context.beginPath();
      context.moveTo(x, y);
      // Through the middles between the points, which takes the mouse's corners out; a lone point becomes a dot.
      for (const [nextX, nextY] of rest) {
        context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
        [x, y] = [nextX, nextY];
      }
      context.lineTo(x, y);
      context.stroke();
    }
  }

  #down(event: PointerEvent): void {
    if (!event.isPrimary || event.button !== 0) {
      return;
    }
    if (this.#replay) {
      this.#stop();
      this.#strokes = [];
    }
    this.#pointer = event.pointerId;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#strokes.push([this.#point(event)]);
    this.paint();
    this.#events.moved();
  }

  #move(event: PointerEvent): void {
    const stroke = this.#strokes.at(-1);
    if (event.pointerId !== this.#pointer || !stroke) {
      return;
    }
    // A fast pen moves several times between two frames; some browsers keep that to themselves.
    const all = event.getCoalescedEvents?.() ?? [];
    for (const each of all.length ? all : [event]) {
      stroke.push(this.#point(each));
    }
    this.paint();
    this.#events.moved();
  }

  #up(event: PointerEvent): void {
    if (event.pointerId === this.#pointer) {
      this.#pointer = undefined;
      this.#events.ended();
    }
  }

  #point(event: PointerEvent): [number, number] {
    const box = this.#canvas.getBoundingClientRect();
    const onSheet = (at: number, from: number, size: number): number =>
      Math.min(SIDE, Math.max(0, ((at - from) / size) * SIDE));
    return [onSheet(event.clientX, box.left, box.width), onSheet(event.clientY, box.top, box.height)];
  }

  #stop(): void {
    cancelAnimationFrame(this.#replay);
    this.#replay = 0;
  }
}
