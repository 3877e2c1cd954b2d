import { fileURLToPath } from "node:url";

import { defineConfig } from "vite";

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));

export default defineConfig({
  root: path("page"),
  base: "./",
  logLevel: "warn",
  resolve: {
    alias: {
      "selkie/local": path("pkg/local.js"),
      selkie: path("pkg/index.js"),
    },
  },
  worker: { format: "es" },
  build: {
    outDir: path("dist"),
    emptyOutDir: true,
    target: "es2022",
    // Everything is a file of its own, as the page's content security policy asks; nothing is inlined as data.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
});
