import { expect, test } from "vitest";
import { Tensor } from "../src/lib/wire";
import { colourOf, linesOf } from "../src/pictures/heads/arcs";

const lines = {
  key: new Tensor([2, 2, 2], Int32Array.of(0, 1, 1, 0, 0, 1, 0, 1)),
  weight: new Tensor([2, 2, 2], Float32Array.of(1, 0, 0.75, 0.25, 1, 0, 0.5, 0.5)),
};

test("lines are the weights that there are, the strongest first", () => {
  const made = linesOf(lines, null);
  expect(made.map(({ weight }) => weight)).toEqual([1, 1, 0.75, 0.5, 0.5, 0.25]);
  expect(made[2]).toEqual({ head: 0, query: 1, key: 1, weight: 0.75 });
});

test("lines of one head keep its number", () => {
  const one = { key: lines.key.at(1), weight: lines.weight.at(1) };
  const [key, weight] = [new Tensor([1, 2, 2], one.key.numbers), new Tensor([1, 2, 2], one.weight.numbers)];
  expect(new Set(linesOf({ key, weight }, 7).map(({ head }) => head))).toEqual(new Set([7]));
});

test("one head has the colour that is given, several have one each", () => {
  expect(colourOf(0, 1, "red")).toBe("red");
  expect(new Set([0, 1, 2, 3].map((head) => colourOf(head, 4, "red"))).size).toBe(4);
});
