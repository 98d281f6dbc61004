// Dictionaries of features, and graphs made of them.
import { compute, json, type About, type Open, type ResultOf, type Watching } from "../../lib/api";
import type { components } from "../../lib/schema";

export type Stored = components["schemas"]["ListedFeatures"];
export type ListOfStored = components["schemas"]["ListOfFeatures"];
export type Panel = ResultOf<"panel">;
export type Dashboard = Extract<Panel, { contexts?: unknown } | { feature: number }>;
export type GraphPanel = Extract<Panel, { shown: number[] }>;
export type Intervened = Extract<Panel, { factors: unknown }>;
export type Learn = {
  activation: string;
  transcoder: boolean;
  width: number;
  kind: "topk" | "jumprelu" | "l1";
  k: number;
  samples: number;
  seed: number;
};

export const list = (model: string) => json<ListOfStored>("/studio/features/list", { model });

export const learn = (model: string, name: string, texts: string[], how: Learn, watching?: Watching) =>
  compute<Open<Panel>>("/studio/features/learn", { model, name, texts, ...how }, watching);

export const overview = (model: string, name: string, texts: string[], watching?: Watching) =>
  compute<Open<Panel>>("/studio/features/overview", { model, name, texts }, watching);

export const evaluate = (model: string, name: string, texts: string[], watching?: Watching) =>
  compute<Open<Panel>>("/studio/features/evaluate", { model, name, texts }, watching);

export const dashboard = (model: string, name: string, texts: string[], feature: number, watching?: Watching) =>
  compute<Open<Dashboard>>("/studio/features/dashboard", { model, name, texts, feature }, watching);

export const graph = (asked: object, watching?: Watching) =>
  compute<Open<GraphPanel>>("/studio/features/graph", asked, watching);

export const intervene = (id: string, factors: Record<string, number>, watching?: Watching) =>
  compute<Open<Intervened>>("/studio/features/intervene", { id, factors }, watching);

/** The name under which a dictionary is kept. */
export const nameOf = ({ activation, transcoder, width, kind, k, seed }: Learn): string =>
  [activation, transcoder ? "transcoder" : "", width, kind === "topk" ? `top${k}` : kind, seed || ""]
    .filter((part) => part !== "")
    .join("-")
    .slice(0, 64);

/** What a dictionary can be learned of: streams, what is written into them, states; of a decoder also its MLPs. */
export function places(about: About | undefined): { name: string; transcoder: boolean }[] {
  const names = about?.activations ?? [];
  const last = /\.(resid_pre|resid_mid|resid_post|attn_out|mlp_out|hidden|cell|states)$/;
  const plain = names.filter((name) => last.test(name)).map((name) => ({ name, transcoder: false }));
  if (about?.kind !== "decoder") return plain;
  const mlps = names.filter((name) => /^layers\.\d+\.mlp_out$/.test(name));
  return [...mlps.map((name) => ({ name: name.replace("mlp_out", "mlp"), transcoder: true })), ...plain];
}

/** A text a line; empty lines and those of a character or two are none. */
export const lines = (typed: string): string[] =>
  typed
    .split("\n")
    .map((line) => line.trimEnd())
    .filter((line) => line.trim().length > 2)
    .slice(0, 5000);
