// Lines between the tokens that look and those that are looked at.
import type { Lines } from "./source";

export type Line = { head: number; query: number; key: number; weight: number };

/** The lines of one head, or of every one, the strongest first. */
export function linesOf({ key, weight }: Lines, head: number | null): Line[] {
  const [heads = 0, queries = 0, each = 0] = key.shape;
  const made: Line[] = [];
  for (let h = 0, i = 0; h < heads; h++)
    for (let query = 0; query < queries; query++)
      for (let k = 0; k < each; k++, i++) {
        const strength = weight.numbers![i]!;
        if (strength > 0) made.push({ head: head ?? h, query, key: key.numbers![i]!, weight: strength });
      }
  return made.sort((a, b) => b.weight - a.weight);
}

/** Of one head the colour that is given; of several each its hue. */
export const colourOf = (head: number, heads: number, one: string): string =>
  heads < 2 ? one : `oklch(0.62 0.15 ${Math.round((360 * head) / heads + 40) % 360})`;
