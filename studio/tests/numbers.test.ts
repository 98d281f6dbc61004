import { expect, it } from "vitest";
import { largest, number, places, share, signed, tiny } from "../src/lib/numbers";

it.each([
  [0.12345, "+0.123"],
  [-0.0004, "0.000"],
  [-2.5, "−2.500"],
])("writes %f with its sign", (x, said) => expect(signed(x)).toBe(said));

it.each([
  [null, "–"],
  [NaN, "–"],
  [1234567, "1,234,567"],
  [-3, "−3"],
  [0.00012, "1.2e−4"],
  [0.123456, "0.1235"],
])("writes %s", (x, said) => expect(number(x)).toBe(said));

it("writes probabilities so that small ones are told apart", () => {
  expect([0.5, 0.05, 0.0005].map(share)).toEqual(["50 %", "5.0 %", "0.05 %"]);
});

it("says 0 of no error", () => expect([tiny(0), tiny(2.34e-7)]).toEqual(["0", "2.3e−7"]));

it("finds decimals for numbers of a size", () => expect([200, 5, 0.5, 0.01].map(places)).toEqual([0, 1, 2, 3]));

it("finds the largest by absolute value, never 0", () => {
  expect(largest([1, -5, NaN, 2])).toBe(5);
  expect(largest([0, 0])).toBeGreaterThan(0);
});
