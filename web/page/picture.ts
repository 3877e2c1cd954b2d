// Numbers as pictures of 28 by 28.

export const PIXELS = 784;

type Colour = readonly [number, number, number];

/** Two colours of the style sheet, and what lies between them. */
export type Ramp = readonly [low: Colour, high: Colour];

/** Reads a ramp from the style sheet, so that light and dark are decided in one place. */
export function ramp(low: string, high: string): Ramp {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string): Colour => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    return [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)) as unknown as Colour;
  };
  return [colour(low), colour(high)];
}

/** Paints 784 colours, each given by its pixel's number. */
export function paint(canvas: HTMLCanvasElement, colour: (pixel: number) => Colour): void {
  const image = new ImageData(28, 28);
  for (let pixel = 0; pixel < PIXELS; pixel++) {
    image.data.set([...colour(pixel), 255], pixel * 4);
  }
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}

/** The colour at `level`, 0 to 1, of a ramp. */
export function between([low, high]: Ramp, level: number): Colour {
  return low.map((from, i) => Math.round(from + ((high[i] ?? 0) - from) * level)) as unknown as Colour;
}

/** A ring element as a level: its highest byte. */
export const level = (element: bigint): number => Number(element >> 56n) / 255;
