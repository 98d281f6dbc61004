import { expect, it } from "vitest";
import { asAnswer } from "../src/lib/answers";
import { fitted } from "../src/lib/numbers";
import { extent, joining, rowsOf, type Stage } from "../src/pages/map/flow";

let after = 0;
const stage = (name: string, kind: string, layer: number, values: number[]): Stage => {
  const value = values.reduce((a, b) => a + b, 0);
  after += value;
  const parts = values.map((x, i) => ({
    name: `${name}.${i}`,
    label: "",
    value: x,
    path: [`${name}.${i}`],
    opens: true,
  }));
  return { name, kind, layer, label: "", value, after, parts };
};
const STAGES = [
  stage("embedding", "embedding", -1, [0.5]),
  stage("layers.0.attention", "attention", 0, [1, -0.25]),
  stage("layers.0.mlp", "mlp", 0, [2]),
  stage("layers.1.attention", "attention", 1, [-1, -1]),
  stage("layers.1.mlp", "mlp", 1, [4]),
];

it("puts a layer's attention and MLP into one row, on both sides of the stream", () => {
  const rows = rowsOf(STAGES, new Set());
  expect(rows.map(({ left, right }) => [left?.value, right?.value])).toEqual([
    [0.5, undefined],
    [0.75, 2],
    [-2, 4],
  ]);
  expect(rows.map((row) => row.after)).toEqual([0.5, 3.25, 5.25]);
  expect(rows[2]!.from).toEqual({ left: 1.25, right: 2 });
  expect(extent(rows)).toEqual({ left: 1.25, right: 6, most: 4 });
});

it("shows heads one by one where a layer is opened; the sums stay", () => {
  const rows = rowsOf(STAGES, new Set(["layers.0.attention"]));
  expect(rows.map(({ left }) => left?.part?.value ?? left?.value)).toEqual([0.5, 1, -0.25, -2]);
  expect(rows[2]!.right?.value).toBe(2);
  expect(rows.at(-1)!.after).toBe(5.25);
});

it("opens a single term at once, and several as what they are made of", () => {
  const [, attention] = rowsOf(STAGES, new Set());
  expect(attention!.left!.path).toBeNull();
  expect(attention!.right!.path).toEqual(["layers.0.mlp.0"]);
});

it("shows the largest of very many steps one by one, and sums those between", () => {
  const steps = Array.from({ length: 1000 }, (_, i) => stage(`step.${i}`, "step", i, [i % 50 === 0 ? 5 : 0.01]));
  const rows = rowsOf(steps, new Set());
  expect(rows.length).toBeLessThan(80);
  expect(rows.reduce((sum, { merged }) => sum + (merged || 1), 0)).toBe(1000);
  expect(rows.at(-1)!.after).toBeCloseTo(20 * 5 + 980 * 0.01);
});

it.each([
  ["joins from the left", joining(100, 90, 0, 15, 30), "M0 10H85", "V30H90"],
  ["joins from the right", joining(100, 110, 200, 15, 30), "M200 10H115", "V30H110"],
  ["leaves to the left", joining(100, 110, 0, 15, 30), "M0 20H95", "V0H100"],
])("draws what %s", (_, path, begins, holds) => {
  expect(path.startsWith(begins) || path.includes(begins.slice(1))).toBe(true);
  expect(path).toContain(holds);
});

it("takes answers as they are shown", () => {
  expect(asAnswer(" the")).toBe(" the");
  expect(asAnswer("\\n")).toBe("\n");
  expect(asAnswer("12", true)).toBe(12);
  expect(asAnswer("12")).toBe("12");
  expect(asAnswer("")).toBeUndefined();
});

it("writes numbers with the decimals that their size asks for", () => {
  expect([1.23456, 0.0123456, -0.000002].map((x) => fitted(x))).toEqual(["+1.235", "+0.0123", "−2.0e−6"]);
  expect(fitted(0.001, 5)).toBe("+0.001");
});
