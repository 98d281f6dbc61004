// The chapters: which function works out the numbers of each, and what can be tried there.
import type { About, Plain } from "../../lib/api";

export type Control =
  | { kind: "range"; name: ControlName; min: number; max: number; step: number; start: number | null; log?: boolean }
  | { kind: "tokens"; name: "position" }
  | { kind: "count"; name: "layer" | "head" | "unit" | "neuron" | "top_k"; free?: boolean }
  | { kind: "part"; name: "part" }
  | { kind: "word"; name: "other" }
  | { kind: "text"; name: "text" }
  | { kind: "along"; name: "nudge" };
export type ControlName =
  | "sharpness" | "gate" | "shift" | "raised" | "lr" | "weight_decay" | "steps" | "temperature" | "top_p" | "uniform"; // prettier-ignore
export type Chapter = {
  id: ChapterId;
  /** The function of `cutaway.interp`. */
  analysis: string;
  /** Which formula, where a kind of model has its own. */
  formula: string;
  controls: Control[];
  needs?: "loss" | "writing";
};
export const IDS = ["tokens", "embedding", "attention", "block", "loss", "gradient", "step", "training", "sampling"] as const; // prettier-ignore
export type ChapterId = (typeof IDS)[number];

const range = (name: ControlName, min: number, max: number, step: number, start: number | null, log = false): Control => ({
  kind: "range", name, min, max, step, start, log,
}); // prettier-ignore
const at: Control = { kind: "tokens", name: "position" };
const layer: Control = { kind: "count", name: "layer" };
const learned = ["causal_lm", "masked_lm", "sequence_classification", "token_classification"];

/** A chapter as it is for a kind of model. */
export function chapter(id: ChapterId, about: About): Chapter {
  const gates = about.has.includes("units");
  const made = (analysis: string, controls: Control[], more: Partial<Chapter> = {}): Chapter => ({
    id, analysis: `${analysis}_by_hand`, formula: id, controls, ...more,
  }); // prettier-ignore
  const formula = about.kind === "LSTM" ? "lstm" : "gru";
  const cell = made("gates", [at, layer, { kind: "count", name: "unit", free: true }, range("gate", 0, 1, 0.01, null)], { formula }); // prettier-ignore
  const part: Control[] = about.has.includes("source") ? [{ kind: "part", name: "part" }] : [];
  switch (id) {
    case "tokens":
      return made("tokens", [{ kind: "text", name: "text" }]);
    case "embedding":
      return made("embedding", [at, { kind: "word", name: "other" }]);
    case "attention":
      if (gates) return cell;
      return made("attention", [
        ...part,
        at,
        layer,
        { kind: "count", name: "head" },
        range("sharpness", 0, 4, 0.05, 1),
      ]);
    case "block":
      if (gates) return cell;
      return made("block", [at, layer, { kind: "count", name: "neuron", free: true }, range("shift", -5, 5, 0.1, 0)]);
    case "loss":
      return made("loss", [at, range("raised", -6, 6, 0.1, 0)], { needs: "loss" });
    case "gradient":
      return made("gradient", [{ kind: "along", name: "nudge" }], { needs: "loss" });
    case "step":
      return made("step", [range("lr", -5, 0, 0.25, -3, true), range("weight_decay", 0, 1, 0.05, 0.1), range("steps", 1, 20, 1, 5)], { needs: "loss" }); // prettier-ignore
    case "training":
      return made("training", [range("lr", -5, 0, 0.25, -3, true), range("steps", 1, 30, 1, 8)], { needs: "loss" });
    case "sampling":
      return made("sampling", [at, range("temperature", 0, 2, 0.05, 1), { kind: "count", name: "top_k", free: true }, range("top_p", 0.05, 1, 0.05, null), range("uniform", 0, 0.99, 0.01, 0.5)], { needs: "writing" }); // prettier-ignore
  }
}

/** Why a chapter has no numbers of a model; null: it has. */
export function whyNone({ needs }: Chapter, about: About): "noLoss" | "noWriting" | null {
  if (needs === "loss" && !learned.includes(about.head)) return "noLoss";
  if (needs === "writing" && !about.has.includes("writing")) return "noWriting";
  return null;
}

/** What is asked of the function: what a control holds, where it was touched or has a start of its own. */
export function optionsOf(controls: Control[], held: Record<string, Plain>): Record<string, Plain> {
  const made: Record<string, Plain> = {};
  for (const control of controls) {
    if (control.kind === "text" || control.kind === "along") continue;
    let value = held[control.name] ?? null;
    if (value === null && control.kind === "range") value = control.start;
    if (value === null || value === "") continue;
    made[control.name] = control.kind === "range" && control.log ? Number((10 ** Number(value)).toPrecision(3)) : value;
  }
  return made;
}
