// The same seeds make the same bytes natively, in Node and in Chromium: one digest for each role, against those that the
// native tests are held to.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { launch, served } from "./chromium.mjs";

const committed = await readFile(new URL("../golden.txt", import.meta.url), "utf8");

test("all roles send in Node what they send natively", async () => {
  const roles = new URL("../../web/wasm/all-roles/", import.meta.url);
  const { default: init, transcripts } = await import(new URL("selkie.js", roles));
  await init({ module_or_path: await readFile(new URL("selkie_bg.wasm", roles)) });
  assert.equal(transcripts(), committed);
});

test("all roles send in Chromium what they send natively", async () => {
  const [browser, host] = await Promise.all([launch(), served()]);
  try {
    const page = await browser.newPage();
    await page.goto(`${host.url}blank`);
    const sent = await page.evaluate(async () => {
      const { default: init, transcripts } = await import("/wasm/all-roles/selkie.js");
      await init({ module_or_path: "/wasm/all-roles/selkie_bg.wasm" });
      return transcripts();
    });
    assert.equal(sent, committed);
  } finally {
    await browser.close();
    host.close();
  }
});
