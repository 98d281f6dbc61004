// A table of examples that was pasted, and what a model says of it.
import { compute, json, type Open, type ResultOf, type Watching } from "../../lib/api";
import type { components } from "../../lib/schema";

export type Read = components["schemas"]["TableRows"];
/** What was typed, what was read of it, and which columns are meant; "": by their names. */
export type Pasted = { typed: string; read: Read | null; text: string; label: string };
export type Answered = Extract<ResultOf<"panel">, { cells: unknown }>;
export type AnsweredRow = Answered["rows"][number];

export const readTable = (table: string) => json<Read>("/studio/table", { table });

export function answer(model: string, pasted: Pasted, watching?: Watching): Promise<Open<Answered>> {
  const columns: Record<string, string> = {};
  if (pasted.text) columns.text = pasted.text;
  if (pasted.label) columns.label = pasted.label;
  const rows = pasted.read!.rows.map(({ values }) => values);
  return compute<Open<Answered>>("/studio/answers", { model, rows, columns }, watching);
}

export const why = (model: string, given: Record<string, unknown>, watching?: Watching) =>
  compute<Open<ResultOf<"scores">>>("/studio/why", { model, given }, watching);

const USUAL = {
  text: /^(text|review|sentence|comment|content|question|文本|内容|评论)$/i,
  label: /^(labels?|class|category|intent|sentiment|target|标签|类别)$/i,
};

/** The column that is meant: the chosen one, or the one that is usually called so. */
export function columnOf(pasted: Pasted, role: "text" | "label"): string | undefined {
  return pasted[role] || pasted.read?.columns.find((name) => USUAL[role].test(name));
}

/** Texts and labels of the rows that have both, for probes. */
export function pairs(pasted: Pasted): { texts: string[]; labels: string[] } | null {
  const [text, label] = [columnOf(pasted, "text"), columnOf(pasted, "label")];
  if (!pasted.read || !text || !label || text === label) return null;
  const both = pasted.read.rows
    .map(({ values }) => [values[text], values[label]] as const)
    .filter(([a, b]) => a !== null && a !== undefined && a !== "" && b !== null && b !== undefined && b !== "");
  return { texts: both.map(([a]) => String(a)), labels: both.map(([, b]) => String(b)) };
}
