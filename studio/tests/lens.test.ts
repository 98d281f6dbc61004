// @vitest-environment jsdom
import { render } from "@testing-library/svelte";
import { describe, expect, it, vi } from "vitest";
import { fitted, shown, strength, visible } from "../src/lib/lens";
import { Tensor } from "../src/lib/wire";
import Cell from "../src/pages/lens/Cell.svelte";
import Pair from "../src/pages/patch/Pair.svelte";

vi.stubGlobal("ResizeObserver", class {
  observe() {}
  disconnect() {}
}); // prettier-ignore

describe("a table of words", () => {
  it("draws what is in sight and no more", () => {
    expect(visible(0, 100, 10, 1000)).toEqual([0, 10]);
    expect(visible(25, 100, 10, 1000)).toEqual([2, 13]);
    expect(visible(9950, 100, 10, 1000)).toEqual([995, 1000]);
    expect(visible(0, 100, 10, 3)).toEqual([0, 3]);
    expect(visible(500, 0, 10, 3)).toEqual([3, 3]);
  });

  it("cuts words to their cell by characters, never within one", () => {
    const wide = (text: string) => [...text].length * 7;
    expect(fitted("short", 70, wide)).toBe("short");
    expect(fitted("considerably", 70, wide)).toBe("considera…");
    expect(fitted("😀😀😀😀", 21, wide)).toBe("😀😀…");
    expect(fitted("abc", 3, wide)).toBe("…");
  });

  it("shows the blanks of a token", () => expect(shown("  a b ")).toBe("··a b·"));

  it("colours by probability, entropy and rank from 0 to 1", () => {
    expect(strength("probability", 0.25, 1)).toBe(0.5);
    expect(strength("entropy", 2, 8)).toBe(0.25);
    expect(strength("rank", 1, 1000)).toBe(1);
    expect(strength("rank", 1000, 1000)).toBeCloseTo(0);
    expect(strength("rank", 10, 1000)).toBeCloseTo(2 / 3);
    expect(strength("rank", 1, 1)).toBe(1);
  });
});

const numbers = (shape: number[], given: number[], kind: typeof Float32Array | typeof Int32Array = Float32Array) =>
  new Tensor(shape, new kind(given));

describe("a cell of a lens", () => {
  const result = {
    picture: "lens",
    tokens: ["a", " b"],
    layers: ["embedding", "layer 0"],
    words: { "3": " cat", "4": "dog" },
    ids: numbers([2, 2, 2], [3, 4, 4, 3, 3, 4, 4, 3], Int32Array),
    logits: numbers([2, 2, 2], [1, 0, 2, 1, 3, 2, 4.5, 3]),
    probabilities: numbers([2, 2, 2], [0.5, 0.25, 0.75, 0.125, 0.5, 0.25, 0.875, 0.0625]),
  };
  const props = { subject: { model: "m", text: "ab", source: null }, column: 1, name: "layer 0", pins: [4] };

  it("names its tokens with probability and logit, and marks those that are pinned", () => {
    const toggled: number[] = [];
    const { container } = render(Cell, {
      ...props,
      result: result as never,
      row: 1,
      toggle: (id: number) => toggled.push(id),
    });
    const rows = [...container.querySelectorAll("tbody tr")];
    expect(rows.map((row) => row.textContent!.replace(/\s+/g, " ").trim())).toEqual(["dog88 %4.500", "·cat6.3 %3.000"]);
    const boxes = [...container.querySelectorAll("input")];
    expect(boxes.map((box) => box.checked)).toEqual([true, false]);
    boxes[1]!.click();
    expect(toggled).toEqual([3]);
    expect(container.querySelectorAll("td button").length).toBe(2); // the output's logits open as ledgers
  });
});

describe("two texts beside each other", () => {
  const pairing = {
    picture: "table",
    rows: [
      [0, "a", 0, "a"],
      [1, "b", null, null],
      [null, null, 1, "c"],
    ],
    clean: ["a", "b"],
    corrupt: ["a", "c"],
    partners: [[0, 0]],
    differ: [],
    equal: false,
  };

  it("leaves gaps where a token has no partner, and offers what can be done", () => {
    const { container, getByText } = render(Pair, { pairing: pairing as never, align: "refuse", sources: false });
    expect(container.querySelectorAll("td.gap").length).toBe(2);
    expect(container.querySelector("[role=alert]")!.textContent).toContain("2 tokens and the corrupt one 2");
    getByText("padding the shorter").click();
  });

  it("says that equal texts leave nothing to patch", () => {
    const same = { ...pairing, equal: true, rows: [[0, "a", 0, "a"]], corrupt: ["a"], clean: ["a"] };
    const { container } = render(Pair, { pairing: same as never, align: "refuse", sources: false });
    expect(container.querySelector("[role=alert]")!.textContent).toContain("The two are the same");
  });
});
