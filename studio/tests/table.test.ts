import { describe, expect, it } from "vitest";
import { columnOf, pairs, type Pasted } from "../src/pages/attribution/table";
import { lines, nameOf, places } from "../src/pages/features/features";
import type { About } from "../src/lib/api";

const rows = [
  { source: "rows:2", values: { Review: "fine", label: "good", n: 1 } },
  { source: "rows:3", values: { Review: "", label: "bad", n: 2 } },
  { source: "rows:4", values: { Review: "poor", label: null, n: 3 } },
  { source: "rows:5", values: { Review: "bad", label: "bad", n: 0 } },
];
const pasted: Pasted = {
  typed: "",
  read: { columns: ["n", "Review", "label"], rows, skipped: [] },
  text: "",
  label: "",
};

describe("a pasted table", () => {
  it("has its columns by their usual names, or as they are chosen", () => {
    expect([columnOf(pasted, "text"), columnOf(pasted, "label")]).toEqual(["Review", "label"]);
    expect(columnOf({ ...pasted, label: "n" }, "label")).toBe("n");
  });

  it("gives probes the rows that have both a text and a label", () => {
    expect(pairs(pasted)).toEqual({ texts: ["fine", "bad"], labels: ["good", "bad"] });
    expect(pairs({ ...pasted, label: "n" })!.labels).toEqual(["1", "3", "0"]);
    expect(pairs({ ...pasted, text: "label" })).toBeNull();
    expect(pairs({ ...pasted, read: null })).toBeNull();
  });
});

describe("dictionaries", () => {
  const about = (kind: string, activations: string[]) => ({ kind, activations }) as unknown as About;

  it("are learned of streams and states, and of a decoder's MLPs", () => {
    const names = ["embed", "layers.0.resid_post", "layers.0.attn.pattern", "layers.0.mlp_out", "logits"];
    expect(places(about("decoder", names))).toEqual([
      { name: "layers.0.mlp", transcoder: true },
      { name: "layers.0.resid_post", transcoder: false },
      { name: "layers.0.mlp_out", transcoder: false },
    ]);
    expect(places(about("GRU", ["embed", "layers.0.hidden"]))).toEqual([
      { name: "layers.0.hidden", transcoder: false },
    ]);
    expect(places(undefined)).toEqual([]);
  });

  it("have plain names, and texts a line", () => {
    const how = { activation: "layers.0.mlp", transcoder: true, width: 64, k: 8, samples: 1, seed: 3 };
    expect(nameOf({ ...how, kind: "topk" })).toBe("layers.0.mlp-transcoder-64-top8-3");
    expect(nameOf({ ...how, kind: "l1", transcoder: false, seed: 0 })).toBe("layers.0.mlp-64-l1");
    expect(lines("one line\n\n  \nab\nanother \r\n  indented")).toEqual(["one line", "another", "  indented"]);
  });
});
