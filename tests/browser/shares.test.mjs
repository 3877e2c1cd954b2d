// What the servers receive of a drawing, made where it is made for real: by the package, in a browser.

import assert from "node:assert/strict";
import { test } from "node:test";

import { digits, launch, served } from "./chromium.mjs";

const RESHARINGS = 500;

test(`over ${RESHARINGS} re-sharings each server's share is noise, and together they are the drawing`, async () => {
  const [browser, host, drawings] = [await launch(), await served(), await digits()];
  try {
    const page = await browser.newPage();
    await page.goto(new URL("blank", host.url).href);
    const found = await page.evaluate(measure, [drawings.find(({ digit }) => digit === 8).strokes, RESHARINGS]);
    console.log(JSON.stringify(found));
    assert.equal(found.exact, RESHARINGS);
    assert.equal(found.repeated, 0);
    for (const { z, correlation } of found.servers) {
      assert.ok(z < 4.753, `chi-square: p is below one in a million (z = ${z})`);
      assert.ok(Math.abs(correlation) < 0.01, `correlation with the drawing: ${correlation}`);
    }
  } finally {
    await browser.close();
    host.close();
  }
});

/** In the page: byte counts of every share, and each element's correlation with its pixel. */
async function measure([strokes, times]) {
  const { local } = await import("/pkg/local.js");
  const { rasterise, split, join } = await local();
  const pixels = rasterise(strokes).map((pixel) => Math.round(pixel * 65536) / 65536);
  const mean = pixels.reduce((a, b) => a + b) / pixels.length;
  const servers = [0, 1].map(() => ({ counts: new Float64Array(256), with: 0, squares: 0 }));
  let [exact, repeated, before] = [0, 0, 0n];
  for (let i = 0; i < times; i++) {
    const shares = split(pixels);
    exact += join(shares).every((value, pixel) => value === pixels[pixel]) ? 1 : 0;
    repeated += shares.share0[0] === before ? 1 : 0;
    before = shares.share0[0];
    for (const [server, share] of [shares.share0, shares.share1].entries()) {
      const sums = servers[server];
      for (const byte of new Uint8Array(share.buffer)) {
        sums.counts[byte]++;
      }
      for (const [pixel, element] of share.entries()) {
        const centred = Number(element >> 11n) / 2 ** 53 - 0.5;
        sums.with += centred * (pixels[pixel] - mean);
        sums.squares += centred * centred;
      }
    }
  }
  const ink = times * pixels.reduce((sum, pixel) => sum + (pixel - mean) ** 2, 0);
  return {
    exact,
    repeated,
    servers: servers.map((sums) => {
      const expected = (times * pixels.length * 8) / 256;
      const chi = sums.counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
      // Wilson and Hilferty's normal deviate for chi-square with 255 degrees of freedom.
      const z = (Math.cbrt(chi / 255) - (1 - 2 / (9 * 255))) / Math.sqrt(2 / (9 * 255));
      return { z, correlation: sums.with / Math.sqrt(sums.squares * ink) };
    }),
  };
}
