import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

// The server gives out what is packed here, and computes nothing for it.
const pack = (): Plugin => ({
  name: "pack",
  apply: "build",
  writeBundle({ dir }) {
    const folder = join(dir!, "assets");
    for (const name of readdirSync(folder))
      if (/\.(js|css)$/.test(name))
        writeFileSync(join(folder, `${name}.gz`), gzipSync(readFileSync(join(folder, name)), { level: 9 }));
  },
});

export default defineConfig({
  plugins: [svelte(), pack()],
  build: {
    outDir: "../cutaway/serve/static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
  },
  server: { proxy: { "/studio": "http://127.0.0.1:8317", "/v1": "http://127.0.0.1:8317" } },
  resolve: process.env.VITEST ? { conditions: ["browser"] } : {},
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
});
