import { expect, test } from "vitest";
import type { About } from "../src/lib/api";
import { chapter, IDS, optionsOf, whyNone } from "../src/pages/learn/chapters";
import { FORMULAS } from "../src/pages/learn/formulas";
import { LABELS } from "../src/pages/learn/labels";
import { along, digits } from "../src/pages/learn/lesson";
import { said } from "../src/pages/learn/said";
import { chancesOf, cosine, marked, spansOf } from "../src/pages/work/tasks";

const about = (kind: string, head: string, has: string[]) => ({ kind, head, has, layers: 2, heads: 2, width: 8, vocabulary: 9 }) as unknown as About; // prettier-ignore
const decoder = about("decoder", "causal_lm", ["attention", "stream", "words", "writing"]);
const gru = about("GRU", "causal_lm", ["units", "words", "writing"]);
const vectors = about("encoder", "embedding", ["attention", "stream"]);

test("every chapter has its formula and its words in both languages", () => {
  for (const model of [decoder, gru, about("LSTM", "causal_lm", ["units", "words", "writing"])])
    for (const id of IDS) {
      expect(FORMULAS[chapter(id, model).formula]!.length).toBeGreaterThan(0);
      for (const what of ["title", "lead", "try", "kinds"]) {
        const { en, zh } = said[`${id}.${what}` as keyof typeof said];
        expect(en.length).toBeGreaterThan(3);
        expect(zh).toMatch(/[一-鿿]/);
      }
    }
  for (const { en, zh } of Object.values(LABELS)) expect([en, zh]).not.toContain("");
});

test("a recurrent model has gates where others attend, and a model of vectors no loss", () => {
  expect(chapter("attention", decoder).analysis).toBe("attention_by_hand");
  expect(chapter("attention", gru).analysis).toBe("gates_by_hand");
  expect(whyNone(chapter("loss", vectors), vectors)).toBe("noLoss");
  expect(whyNone(chapter("sampling", vectors), vectors)).toBe("noWriting");
  expect(whyNone(chapter("loss", decoder), decoder)).toBeNull();
});

test("a control that was not touched asks for the model's own number", () => {
  const { controls } = chapter("step", decoder);
  expect(optionsOf(controls, {})).toEqual({ lr: 0.001, weight_decay: 0.1, steps: 5 });
  expect(optionsOf(controls, { lr: -2 }).lr).toBe(0.01);
  expect(optionsOf(chapter("attention", gru).controls, {})).toEqual({});
  expect(optionsOf(chapter("attention", gru).controls, { gate: 0 })).toEqual({ gate: 0 });
});

test("numbers keep the digits that are asked for", () => {
  expect(digits(7.3504123, 8)).toBe("7.3504123");
  expect(digits(-0.0000123, 3)).toBe("−1.23e−5");
  expect(digits(1234567)).toBe("1,234,567");
  const curve = { at: [-1, 0, 1], lines: { loss: [3, 2, 1.5], gradient: [2.9, 2, 1.1] } };
  expect(along(curve as unknown as Parameters<typeof along>[0], 2)).toEqual({ at: 1, loss: 1.5, promised: 1.1 });
});

test("spans are marked where Python counts them, beyond the basic plane too", () => {
  const spans = [{ start: 2, end: 6, label: "PER", text: "Anna" }];
  expect(spansOf(spans)).toEqual(spans);
  expect(spansOf(["a"])).toBeNull();
  expect(marked("😀 Anna!", spans).map(({ text, label }) => [text, label])).toEqual([
    ["😀 ", null],
    ["Anna", "PER"],
    ["!", null],
  ]);
});

test("labels stand by their chances, vectors by their angle", () => {
  expect(chancesOf({ probabilities: { a: 0.2, b: 0.8 } })).toEqual([["b", 0.8], ["a", 0.2]]); // prettier-ignore
  expect(cosine([1, 0], [0, 2])).toBe(0);
  expect(cosine([1, 1], [2, 2])).toBeCloseTo(1);
});
