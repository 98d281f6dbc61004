import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin } from "vite";
import { defineConfig, type ViteUserConfig } from "vitest/config";

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

// A page holds the script between its tags, which nothing in it may end or comment out.
const inline = (): Plugin => ({
  name: "inline",
  generateBundle(_, bundle) {
    for (const file of Object.values(bundle))
      if (file.type === "chunk") file.code = file.code.replace(/<(?=\/script|!--|script)/gi, "\\x3c");
  },
});

const studio: ViteUserConfig = {
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
};

// Pages that are saved hold one script and one style (cutaway/interp/pictures/page.py).
const pages: ViteUserConfig = {
  plugins: [svelte(), inline()],
  publicDir: false,
  build: {
    outDir: "../cutaway/interp/pictures/static",
    emptyOutDir: true,
    target: "es2022",
    lib: {
      entry: "src/saved/main.ts",
      formats: ["iife"],
      name: "page",
      fileName: () => "page.js",
      cssFileName: "page",
    },
  },
};

export default defineConfig(({ mode }) => (mode === "saved" ? pages : studio));
