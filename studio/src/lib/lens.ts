// How a cell of a lens is coloured and which part of a large table is in sight.

export type Colouring = "probability" | "entropy" | "rank";

/** 0 … 1 for a cell; `most` is the largest entropy, or the size of the vocabulary's largest rank, of the table. */
export function strength(by: Colouring, x: number, most: number): number {
  if (by === "probability") return Math.sqrt(Math.max(0, x));
  if (by === "entropy") return most > 0 ? x / most : 0;
  return x > 0 && most > 1 ? 1 - Math.log(x) / Math.log(most) : 1;
}

/** First and one past the last of some lanes that are in sight. */
export function visible(scrolled: number, room: number, lane: number, count: number): [number, number] {
  const first = Math.max(0, Math.min(count, Math.floor(scrolled / lane)));
  return [first, Math.max(first, Math.min(count, Math.ceil((scrolled + room) / lane)))];
}

/** A text cut to a width, with an ellipsis; `measure` says how wide a text is. */
export function fitted(text: string, room: number, measure: (text: string) => number): string {
  if (measure(text) <= room) return text;
  const letters = [...text];
  let [low, high] = [0, letters.length];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (measure(`${letters.slice(0, middle).join("")}…`) <= room) low = middle;
    else high = middle - 1;
  }
  return `${letters.slice(0, low).join("")}…`;
}

/** Blanks at the ends of a token made visible, for a canvas. */
export const shown = (token: string): string => token.replace(/^ +| +$/g, (blanks) => "·".repeat(blanks.length));
