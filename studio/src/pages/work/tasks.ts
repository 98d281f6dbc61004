// Tasks' models and what they say: the calls, and how answers are read.
import { compute, json, type Open, type Result, type Watching } from "../../lib/api";
import type { components } from "../../lib/schema";

type Schemas = components["schemas"];
export type Card = Schemas["TaskCard"];
export type Known = Schemas["KnownTask"];
export type Predicted = Schemas["Predicted"];
export type Evaluation = Schemas["Evaluation"];
export type Given = Record<string, string>;
export const PANELS = ["classify", "tag", "pair", "embed", "answer", "translate", "summarise"] as const;
export type Panel = (typeof PANELS)[number];

/** The tasks whose models a panel takes: labels without training are labels too. */
export const tasksOf = (panel: Panel): string[] => (panel === "classify" ? ["classify", "nearest", "score"] : [panel]);

/** The tasks' models that there are now: a listing finds those that were made since the last one. */
export async function cards(signal?: AbortSignal): Promise<Card[]> {
  await json<Schemas["ListedModels"]>("/studio/models", undefined, signal);
  return (await json<Schemas["TaskList"]>("/v1/tasks", undefined, signal)).data;
}
export const known = async (signal?: AbortSignal): Promise<Known[]> =>
  (await json<Schemas["KnownTasks"]>("/studio/tasks", undefined, signal)).tasks;
export const evaluation = (model: string, signal?: AbortSignal) =>
  json<Evaluation>("/studio/evaluation", { model }, signal);
export const predict = async (model: string, inputs: Given[], signal?: AbortSignal): Promise<Predicted[]> =>
  (await json<Schemas["Prediction"]>("/v1/tasks/predict", { model, inputs }, signal)).data;
export const why = (model: string, given: Given, part: number, watching?: Watching) =>
  compute<Open<Result>>("/studio/why", { model, given, part }, watching);

/** The command that makes a model of a task. */
export const commandFor = (task: string): string =>
  `cutaway task train ${task} --data examples.csv --out ${task}-model`;

export type Span = { start: number; end: number; label: string; text: string };

/** An answer that is stretches of the text. */
export function spansOf(answer: unknown): Span[] | null {
  if (!Array.isArray(answer) || !answer.length) return null;
  return answer.every((one) => one && typeof one === "object" && "start" in one && "end" in one)
    ? (answer as Span[])
    : null;
}

/** The text cut where spans begin and end, by characters as Python counts them. */
export function marked(text: string, spans: Span[]): { text: string; label: string | null; part: number }[] {
  const letters = [...text];
  const made: { text: string; label: string | null; part: number }[] = [];
  let at = 0;
  const order = spans.map((span, part) => ({ ...span, part })).sort((a, b) => a.start - b.start);
  for (const { start, end, label, part } of order) {
    if (start < at) continue; // it overlaps the one before
    if (start > at) made.push({ text: letters.slice(at, start).join(""), label: null, part: -1 });
    made.push({ text: letters.slice(start, end).join(""), label, part });
    at = end;
  }
  if (at < letters.length) made.push({ text: letters.slice(at).join(""), label: null, part: -1 });
  return made;
}

/** Where an answer stands in its text. */
export function placeOf({ answer, more }: Predicted): Span | null {
  const { start, end } = more;
  return typeof answer === "string" && typeof start === "number" && typeof end === "number"
    ? { start, end, label: "", text: answer }
    : null;
}

export type Supported = { text: string; support: { quote: string }[] };

/** The sentences of a summary, and what supports each. */
export const supportsOf = ({ more }: Predicted): Supported[] =>
  Array.isArray(more.sentences) ? (more.sentences as Supported[]) : [];

/** What can be explained one by one: labels, sentences of a summary, words of a translation. */
export function partsOf(predicted: Predicted): string[] {
  const { answer, more } = predicted;
  if (Array.isArray(answer) && answer.every((one) => typeof one === "string")) return answer as string[];
  if (Array.isArray(more.alignment)) return (more.alignment as { target: string[] }[]).flatMap(({ target }) => target);
  return supportsOf(predicted).map(({ text }) => text);
}

/** Labels with their probabilities, the likeliest first. */
export function chancesOf(more: Record<string, unknown>): [string, number][] {
  const found = more.probabilities;
  if (!found || typeof found !== "object") return [];
  return Object.entries(found as Record<string, number>).sort((a, b) => b[1] - a[1]);
}

export function cosine(a: number[], b: number[]): number {
  let [dot, one, other] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    one += a[i]! ** 2;
    other += b[i]! ** 2;
  }
  return dot / Math.max(1e-12, Math.sqrt(one * other));
}

export const isVector = (answer: unknown): answer is number[] =>
  Array.isArray(answer) && answer.length > 8 && answer.every((x) => typeof x === "number");

/** An answer as one reads it. */
export function readable(answer: unknown): string {
  if (answer === null || answer === undefined) return "";
  if (typeof answer === "string" || typeof answer === "number" || typeof answer === "boolean") return String(answer);
  if (Array.isArray(answer) && answer.every((one) => typeof one === "string")) return answer.join(", ");
  if (typeof answer === "object" && "text" in answer) return String((answer as { text: unknown }).text ?? "");
  return JSON.stringify(answer);
}
