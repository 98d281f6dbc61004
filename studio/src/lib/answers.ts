// Answers of a model as people choose them: shown with their blanks and escapes, asked for as they are.
import type { About } from "./api";

/** Whether a model makes vectors: its answers are channels, which have numbers and no names. */
export const givesVectors = (about: About | undefined): boolean =>
  !!about && ["none", "embedding"].includes(about.head);

/** What a ledger takes as `token`: the text, with \n and its like as the characters they stand for; a channel's number. */
export function asAnswer(shown: string | null | undefined, vectors = false): string | number | undefined {
  if (shown === null || shown === undefined || shown === "") return undefined;
  if (vectors && /^\d+$/.test(shown)) return Number(shown);
  return shown.replace(/\\([nrt])/g, (_, letter: "n" | "r" | "t") => ({ n: "\n", r: "\r", t: "\t" })[letter]);
}
