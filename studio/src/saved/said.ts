// Sentences about results that stand beside pages' controls in the studio.
import type { Chances } from "../lib/api";
import { count, share } from "../lib/numbers";
import type { TipLine } from "../lib/tip.svelte";
import { say } from "../lib/words";
import { words } from "./words";

const OFF: Record<string, number> = { temperature: 1, top_p: 1, min_p: 0 };

/** How surprising the next token is to be, and what the steps of drawing leave of it. */
export function drawing({ entropy, entropy_left, steps }: Chances): string {
  const taken = steps.filter(({ name, value }) => value !== null && value !== OFF[name]);
  const whole = say(words, "entropy", { x: entropy.toFixed(2) });
  if (!taken.length) return whole;
  const said = taken.map(({ name, value, kept }) => say(words, "step", { name, value: value!, kept: count(kept) }));
  return `${whole} ${said.join(", ")}; ${say(words, "entropyLeft", { x: entropy_left.toFixed(2) })}`;
}

/** The probability of a token from its surprise in bits. */
export const probability = (bits: number | null): TipLine[] =>
  bits === null ? [] : [[say(words, "probability"), share(2 ** -bits)]];
