import { describe, expect, it } from "vitest";
import {
  freeName,
  isOf,
  joined,
  nearest,
  points,
  samples,
  samplesAt,
  size,
  type News,
  type Run,
} from "../src/pages/training/runs";

const news = (records: News["records"], again = false): News => ({ state: {} as Run, again, records });

describe("records of a run", () => {
  const records: News["records"] = [
    { step: 1, loss: 5, lr: 0.1 },
    { step: 2, loss: 4, lr: 0.1 },
    { step: 2, valid_loss: 4.5 },
    { step: 2, prompt: "a", sample: "b" },
    { step: 4, prompt: "a", sample: "c" },
    { step: 4, prompt: "d", sample: "" },
  ];

  it("become lines by step", () => {
    expect(points(records, "loss")).toEqual([
      [1, 5],
      [2, 4],
    ]);
    expect(points(records, "valid_loss")).toEqual([[2, 4.5]]);
    expect(points(records, "bits_per_byte")).toEqual([]);
  });

  it("are joined with what is new, and forgotten when a resumed run makes them again", () => {
    const one = joined([], news([records[0]!]));
    expect(joined(one, news([records[1]!]))).toEqual(records.slice(0, 2));
    expect(joined(one, news([]))).toBe(one);
    expect(joined(records, news([records[0]!], true))).toEqual([records[0]]);
  });

  it("hold samples, of which those of the last evaluation up to a step are shown", () => {
    const all = samples(records);
    expect(all.map(({ sample }) => sample)).toEqual(["b", "c", ""]);
    expect(samplesAt(all, 3).map(({ sample }) => sample)).toEqual(["b"]);
    expect(samplesAt(all, Infinity).map(({ sample }) => sample)).toEqual(["c", ""]);
    expect(samplesAt(all, 0).map(({ sample }) => sample)).toEqual(["b"]);
    expect(samplesAt([], 3)).toEqual([]);
  });
});

describe("runs", () => {
  it("find the saved step that is nearest", () => {
    expect(nearest([10, 20, 40], 29)).toBe(20);
    expect(nearest([10, 20, 40], 31)).toBe(40);
    expect(nearest([10, 20, 40], 1000)).toBe(40);
    expect(nearest([], 5)).toBeNull();
  });

  it("are named after files, as folders may be called, and never twice", () => {
    expect(freeName("My novel (2).txt", [])).toBe("My-novel-2");
    expect(freeName("../../etc/passwd", [])).toMatch(/^[A-Za-z0-9_][A-Za-z0-9._-]*$/);
    expect(freeName("红楼梦.txt", [])).toBe("run");
    expect(freeName("a.txt", ["a", "a-2"])).toBe("a-3");
    expect(freeName(`${"x".repeat(90)}.txt`, []).length).toBeLessThanOrEqual(40);
  });

  it("know their own steps", () => {
    const run = { model: "trainings.a" } as Run;
    expect(isOf(run, "trainings.a")).toBe(true);
    expect(isOf(run, "trainings.a.step-00000010")).toBe(true);
    expect(isOf(run, "trainings.ab")).toBe(false);
    expect(isOf({ model: null } as Run, "")).toBe(false);
  });

  it("say sizes as people do", () => {
    expect([12, 3400, 2_500_000].map(size)).toEqual(["12 B", "3 kB", "2.5 MB"]);
  });
});
