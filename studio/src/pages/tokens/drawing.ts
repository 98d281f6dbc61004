// The options of drawing the next token, as sliders have them.
import type { Drawing } from "../../lib/api";

export const NEUTRAL: Drawing = { temperature: 1, top_k: null, top_p: null, min_p: null };

const TOP_K = [1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200, 300, 500, 1000, 2000, 5000, 10000];

export type Name = keyof Drawing;
export type Slider = {
  name: Name;
  min: number;
  max: number;
  step: number;
  at: number;
  /** What the slider's place means. */
  value: (at: number) => number | null;
};

/** The sliders for a vocabulary: top-k stands at numbers that grow, and ends where it keeps all. */
export function sliders(drawing: Drawing, vocabulary: number): Slider[] {
  const ks = TOP_K.filter((k) => k < vocabulary);
  const k = drawing.top_k === null ? ks.length : ks.findIndex((one) => one >= drawing.top_k!);
  return [
    { name: "temperature", min: 0, max: 2, step: 0.05, at: drawing.temperature, value: (at) => at },
    { name: "top_k", min: 0, max: ks.length, step: 1, at: k < 0 ? ks.length : k, value: (at) => ks[at] ?? null },
    { name: "top_p", min: 0.05, max: 1, step: 0.01, at: drawing.top_p ?? 1, value: (at) => (at >= 1 ? null : at) },
    { name: "min_p", min: 0, max: 0.5, step: 0.01, at: drawing.min_p ?? 0, value: (at) => (at > 0 ? at : null) },
  ];
}
