// Which number of the output is asked about, and by which method.
import type { About, Options } from "../../lib/api";
import { view } from "../../lib/state.svelte";

export const METHODS = [
  "integrated_gradients",
  "gradient_x_input",
  "occlusion",
  "shapley",
  "attention_x_gradient",
] as const;
export type Method = (typeof METHODS)[number];
export type Grain = "token" | "word" | "sentence";
export type Quantity = "logit" | "logprob" | "prob";
export type How = { method: Method; grain: Grain; quantity: Quantity };

/** Methods that a model allows: attention only where there is some. */
export const methodsOf = (about: About | undefined): readonly Method[] =>
  METHODS.filter((name) => name !== "attention_x_gradient" || (about?.has.includes("attention") ?? true));

/** Whether a model answers at each token, so that a position is asked about. */
export const hasPosition = (about: About | undefined): boolean =>
  !["sequence_classification", "embedding"].includes(about?.head ?? "");

/** Whether a model gives probabilities. */
export const hasChances = (about: About | undefined): boolean =>
  !["none", "embedding", "replaced_token"].includes(about?.head ?? "");

/** The options that every function of this page takes, from the shared selection. */
export function asked(about: About | undefined, quantity: Quantity): Options {
  const { token, minus, position } = view.selected;
  const options: Options = {};
  if (token) options.token = token;
  if (minus) options.minus = minus;
  if (position !== null && hasPosition(about)) options.position = position;
  if (quantity !== "logit" && hasChances(about)) options.quantity = quantity;
  return options;
}

/** The same number for the ledger, which knows no probabilities; null where it cannot open it. */
export function ledgerOf(about: About | undefined, quantity: Quantity): Options | null {
  if (quantity === "prob") return null;
  const { quantity: given, ...rest } = asked(about, quantity);
  return { what: "logits", ...rest, ...(given ? { quantity: given } : {}) };
}
