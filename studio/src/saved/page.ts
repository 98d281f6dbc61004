// What a saved page holds (cutaway/interp/pictures/page.py): pictures from top to bottom, packed as the server packs.
import type { Receipt, Result, ResultOf } from "../lib/api";
import { unpack } from "../lib/wire";

// of the report of a task (cutaway/tasks/report/page.py)
export type Interval = {
  label: string;
  value: number;
  low: number;
  high: number;
  /** 0: this model, 1: the other one, 2: the baseline. */
  tone: number;
  note: string | null;
  /** The baseline's. */
  other: number | null;
};
export type Intervals = {
  picture: "intervals";
  what: string;
  about: string;
  groups: { name: string; rows: Interval[] }[];
  whole: number | null;
};
export type Confusion = {
  picture: "confusion";
  what: string;
  labels: string[];
  columns: string[];
  counts: number[][];
};
/** Of each line, of each part of the scale: how sure, how often right, how many. */
export type Reliability = {
  picture: "reliability";
  what: string;
  of: string;
  lines: Record<string, [sure: number, right: number, many: number][]>;
};
export type Miss = {
  source: string;
  given: [role: string, text: string][];
  truth: string;
  answer: string;
  probability: number | null;
  right: number;
  why: Result | null;
};
export type Misses = { picture: "misses"; wrong: number; examples: number; rows: Miss[] };

/** Parts of results without receipts of their own. */
type Plainly<R> = R extends unknown ? Omit<R, "receipt" | "checkable"> : never;
export type Part =
  | Plainly<Exclude<Result, ResultOf<"look">>>
  | (Omit<ResultOf<"look">, "about"> & { about: Model })
  | Intervals
  | Confusion
  | Reliability
  | Misses;
export type Model = { name: string; kind: string; shape: string; vocabulary: number; parameters: number };
export type Held = { version: string; parts: Part[]; receipt: Receipt | null };

/** The page's data from the text that holds it. */
export async function held(text: string): Promise<Held> {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return unpack(await new Response(stream).arrayBuffer());
}
