import { inWords, shapeOf, warned } from "../src/lib/asked";
import { describe, expect, it } from "vitest";
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

describe("what Python says in fixed forms", () => {
  it("is said in Chinese where it is known, and left as it is elsewhere", () => {
    const what = "logit of “ Paris” minus that of “ Rome” after “ is” (position 5)";
    expect(inWords(what, "zh")).toBe("“ is”（位置 5）之后“ Paris” 的 logit 减去 “ Rome” 的");
    expect(inWords("log-probability of “good”", "zh")).toBe("“good” 的 对数概率");
    expect([inWords(what, "en"), inWords("channel 7", "zh")]).toEqual([what, "channel 7"]);
    const doubt = "integrated gradients, 32 steps (the scores miss their sum of 3.37 by 27: do not trust them)";
    expect(warned(doubt, "积分梯度", "zh")).toBe("积分梯度（各分数之和应为 3.37，相差 27：请勿采信）");
    expect([warned("occlusion", "遮挡", "zh"), warned(doubt, "积分梯度", "en")]).toEqual(["遮挡", doubt]);
  });
  it("counts layers", () => {
    const gru = { kind: "GRU", shape: "1 layers × 1024 units" };
    expect(shapeOf(gru, "en")).toBe("GRU · 1 layer × 1024 units");
    const decoder = { kind: "decoder", shape: "3 layers × 4 heads, 192 channels" };
    expect(shapeOf(decoder, "zh")).toBe("解码器 · 3 层 × 4 头，192 通道");
  });
});
