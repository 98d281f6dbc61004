import { describe, expect, it } from "vitest";
import { every, exact, fill, moved, near, short, showing, shrunk, table, zoomed, type Window } from "../src/lib/grid";
import { Latest } from "../src/pictures/heads/source";

const value = (i: number, j: number) => (i === 3 && j === 5 ? -0.9 : (10 * i + j) / 100);

describe("shrunk", () => {
  it("keeps numbers where there is room for all", () => {
    const tile = shrunk(value, [1, 3, 0, 3], 10);
    expect([tile.rows, tile.columns]).toEqual([2, 3]);
    [0.1, 0.11, 0.12, 0.2, 0.21, 0.22].forEach((x, k) => expect(tile.numbers[k]).toBeCloseTo(x));
    expect(exact(tile, 2, 1)).toBeCloseTo(0.21);
    expect(exact(tile, 3, 1)).toBeUndefined();
  });
  it("takes the strongest of what a cell covers, with its sign, and no number where there is none", () => {
    const tile = shrunk((i, j) => (i < 2 && j < 2 ? NaN : value(i, j)), [0, 4, 0, 6], 3);
    expect(Number.isNaN(tile.numbers[0])).toBe(true);
    expect(tile.numbers[8]).toBeCloseTo(-0.9);
    expect(exact(tile, 3, 5)).toBeUndefined(); // it is one of several
    expect(near(tile, 3, 4)).toBeCloseTo(-0.9);
    expect(near(tile, 4, 4)).toBeUndefined();
  });
});

describe("fill", () => {
  const colours = table((t) => [Math.round(100 + 100 * t), 7, 9]);
  const pixel = (x: number, most = 1) => {
    const pixels = new Uint32Array(1);
    fill(pixels, [x], colours, most);
    return [...new Uint8Array(pixels.buffer)];
  };
  it("paints -1 … 1, what is beyond as the ends, and leaves out what is no number", () => {
    expect(pixel(0)).toEqual([100, 7, 9, 255]);
    expect(pixel(-1)).toEqual([0, 7, 9, 255]);
    expect(pixel(9)).toEqual([200, 7, 9, 255]);
    expect(pixel(2, 4)).toEqual([150, 7, 9, 255]);
    expect(pixel(NaN)).toEqual([0, 0, 0, 0]);
  });
});

describe("windows", () => {
  it("zoom around a cell that stays where it is, within the matrix", () => {
    expect(zoomed([0, 1000, 0, 1000], 0.5, [500, 500], 1000, 1000)).toEqual([250, 750, 250, 750]);
    expect(zoomed([0, 1000, 0, 1000], 0.5, [0, 999], 1000, 1000)).toEqual([0, 500, 500, 1000]);
    expect(zoomed([250, 750, 250, 750], 4, [500, 500], 1000, 1000)).toEqual([0, 1000, 0, 1000]);
    expect(zoomed([10, 15, 10, 15], 0.1, [12, 12], 1000, 3)).toEqual([11, 15, 0, 3]);
  });
  it("never leave the cell that they are zoomed to", () => {
    let window: Window = [0, 1000, 0, 700];
    for (let k = 0; k < 12; k++) {
      window = zoomed(window, 0.5, [613, 41], 1000, 700);
      expect(window[0] <= 613 && 613 < window[1] && window[2] <= 41 && 41 < window[3]).toBe(true);
    }
    expect([window[1] - window[0], window[3] - window[2]]).toEqual([4, 4]);
  });
  it("move as far as the matrix goes", () => {
    expect(moved([10, 20, 0, 10], 5, -3, 100, 100)).toEqual([15, 25, 0, 10]);
    expect(moved([10, 20, 0, 10], 500, 3, 100, 100)).toEqual([90, 100, 3, 13]);
  });
  it("move as little as shows a cell", () => {
    expect(showing([10, 20, 10, 20], [15, 15], 100, 100)).toEqual([10, 20, 10, 20]);
    expect(showing([10, 20, 10, 20], [20, 4], 100, 100)).toEqual([11, 21, 4, 14]);
  });
});

describe("names", () => {
  it.each([
    ["the", 12, "the"],
    [" the ", 12, "·the·"],
    ["一二三四五", 4, "一二三…"],
    ["layers.12.head.3", 12, "L12 h3"],
    ["encoder.layers.0.mlp", 12, "eL0 mlp"],
  ])("cuts %s to %i characters", (text, most, said) => expect(short(text, most)).toBe(said));
  it("stand as often as there is room", () =>
    expect([20, 13, 12, 0.6].map((cell) => every(cell))).toEqual([1, 1, 2, 22]));
});

describe("Latest", () => {
  it("runs one at a time, and of those that wait the newest alone", async () => {
    const [ran, done]: [number[], number[]] = [[], []];
    const free: (() => void)[] = [];
    const latest = new Latest<number>((k) => done.push(k), () => {}); // prettier-ignore
    const work = (k: number) => () => {
      ran.push(k);
      return new Promise<number>((resolve) => free.push(() => resolve(k)));
    };
    for (const k of [1, 2, 3, 4]) latest.ask(work(k));
    expect(ran).toEqual([1]);
    free[0]!();
    await new Promise((next) => setTimeout(next));
    expect([ran, done]).toEqual([[1, 4], [1]]);
    free[1]!();
    await new Promise((next) => setTimeout(next));
    expect(done).toEqual([1, 4]);
  });
  it("tells an error only where nothing newer was asked for", async () => {
    const [errors, done]: [string[], number[]] = [[], []];
    const latest = new Latest<number>((k) => done.push(k), ({ message }) => errors.push(message)); // prettier-ignore
    latest.ask(() => Promise.reject(new Error("old")));
    latest.ask(() => Promise.resolve(5));
    await new Promise((next) => setTimeout(next));
    latest.ask(() => Promise.reject(new Error("new")));
    await new Promise((next) => setTimeout(next));
    expect([errors, done]).toEqual([["new"], [5]]);
  });
});
