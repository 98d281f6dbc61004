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
