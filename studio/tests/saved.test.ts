import { deflateSync } from "node:zlib";
import { beforeEach, describe, expect, it } from "vitest";
import type { Chances } from "../src/lib/api";
import { view } from "../src/lib/state.svelte";
import type { Tensor } from "../src/lib/wire";
import { Held, mapped, type WithLevels } from "../src/pictures/ledger";
import { held } from "../src/saved/page";
import { drawing, probability } from "../src/saved/said";

const term = (name: string, value: number) => ({ name, value, label: "", opens: true, frozen: "", spread: 0 });

beforeEach(() => {
  view.language = "en";
});

describe("a saved page", () => {
  it("holds packed results", async () => {
    const head = new TextEncoder().encode(
      JSON.stringify({
        version: "1",
        parts: [{ picture: "matrix", values: { $tensor: { dtype: "f4", shape: [1, 2], at: 0 } } }],
        receipt: null,
      }),
    );
    const bytes = new Uint8Array(Math.ceil((4 + head.length) / 8) * 8 + 8).fill(32);
    const seen = new DataView(bytes.buffer);
    seen.setUint32(0, head.length, true);
    bytes.set(head, 4);
    [0.5, -2].forEach((x, i) => seen.setFloat32(bytes.length - 8 + 4 * i, x, true));
    const page = await held(deflateSync(bytes).toString("base64"));
    expect(page.version).toBe("1");
    const [part] = page.parts as unknown as { values: Tensor }[];
    expect(part!.values.rows()).toEqual([[0.5, -2]]);
  });

  it("says what drawing leaves of the chances", () => {
    const step = (name: string, value: number | null) => ({ name, value, kept: 3, share: 1 });
    const made = { entropy: 2, entropy_left: 1.5, steps: [step("temperature", 1), step("top_k", null)] } as Chances;
    expect(drawing(made)).toBe("2.00 bits of surprise are to be expected.");
    made.steps.push(step("top_k", 3));
    expect(drawing(made)).toContain("top_k 3 leaves 3 tokens; after that 1.50 bits.");
    expect(probability(3)).toEqual([["probability", "13 %"]]);
    expect(probability(null)).toEqual([]);
  });
});

describe("a ledger by itself", () => {
  const below = { what: "head", unit: "logits", terms: [term("source.0", 2)], total: 2, error: 0 };
  const ledger = {
    picture: "ledger",
    terms: [term("layers.0.mlp", 1), term("layers.0.head.1", 2), term("layers.1.head.0", -1), term("embed", 0)],
    levels: { "layers.0.head.1": below },
  } as unknown as WithLevels;

  it("opens the levels that it holds, and no others", async () => {
    const made = new Held(ledger);
    expect(made.ledger.terms.map(({ opens }) => opens)).toEqual([false, true, false, false]);
    await made.toggle(["layers.0.head.1"]);
    expect(made.levels.get("layers.0.head.1")).toBe(below);
    await made.toggle(["embed"]);
    await made.toggle(["layers.0.head.1", "source.0"]);
    expect(made.levels.size).toBe(1);
    await made.toggle(["layers.0.head.1"]);
    expect(made.levels.size).toBe(0);
  });

  it("has its heads and MLPs in rows of layers", () => {
    expect(mapped(ledger.terms)).toEqual({
      layers: 2,
      columns: ["0", "1", "MLP"],
      names: [
        ["", "layers.0.head.1", "layers.0.mlp"],
        ["layers.1.head.0", "", ""],
      ],
    });
    expect(mapped([term("embed", 1)])).toBe(null);
  });
});
