import type { components } from "../../lib/schema";
import type { Unpacked } from "../../lib/wire";

/** A formula, worked out (`cutaway.interp.Worked`). */
export type Lesson = Unpacked<components["schemas"]["WorkedResult"]>;

/** The loss at a place along a curve, and what the gradient promises there. */
export function along(
  curve: NonNullable<Lesson["curve"]>,
  place: number,
): { at: number; loss: number; promised: number } {
  return {
    at: curve.at[place]!,
    loss: curve.lines.loss![place]!,
    promised: curve.lines.gradient![place]!,
  };
}

/** A number with so many significant digits: here small differences matter. */
export function digits(x: number, significant = 4): string {
  if (Number.isInteger(x)) return x.toLocaleString("en").replace("-", "−");
  const written = Math.abs(x) < 1e-4 ? x.toExponential(significant - 1) : String(+x.toPrecision(significant));
  return written.replaceAll("-", "−");
}

/** Digits that show what the gradient chapter is about: losses that differ a little. */
export const significant = (chapter: string, name: string): number =>
  chapter === "gradient" && ["loss", "above", "below"].includes(name) ? 8 : chapter === "step" ? 5 : 4;
