// Ten digits for those who cannot or would rather not draw.

import type { Stroke } from "selkie/local";

import drawn from "../../tests/digits/examples.json";
import { SIDE } from "./pad.js";

const EXAMPLES = drawn as unknown as readonly { digit: number; strokes: readonly Stroke[] }[];

const SVG = "http://www.w3.org/2000/svg";

/** Fills `into` with one button for each example; `pick` gets the strokes of the one chosen. */
export function offer(into: HTMLElement, pick: (strokes: readonly Stroke[]) => void): void {
  for (const { digit, strokes } of EXAMPLES) {
    const button = document.createElement("button");
    button.type = "button";
    button.ariaLabel = `Example: ${digit}`;
    button.append(thumbnail(strokes));
    button.addEventListener("click", () => pick(strokes));
    into.append(button);
  }
}

function thumbnail(strokes: readonly Stroke[]): SVGElement {
  const points = strokes.flat();
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const [width, height] = [Math.max(...xs) - left, Math.max(...ys) - top];
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${0.75 * SIDE} ${SIDE}`);
  svg.setAttribute("aria-hidden", "true");
  const shift = `translate(${(0.75 * SIDE - width) / 2 - left} ${(SIDE - height) / 2 - top})`;
  for (const stroke of strokes) {
    const line = document.createElementNS(SVG, "polyline");
    line.setAttribute("points", stroke.join(" "));
    line.setAttribute("transform", shift);
    svg.append(line);
  }
  return svg;
}
