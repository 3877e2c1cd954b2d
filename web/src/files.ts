import type { Shipped } from "./wasm.js";

/** The builds as files beside this one. Bundlers recognise this form of URL and carry the files along. */
export const shipped: Shipped = async (simd) =>
  simd ? new URL("./wasm/client-simd.wasm", import.meta.url) : new URL("./wasm/client.wasm", import.meta.url);
