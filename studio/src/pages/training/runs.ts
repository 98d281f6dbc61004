// Runs as the server tells them, and lines made of their records.
import { compute, json, type Watching } from "../../lib/api";
import type { components } from "../../lib/schema";

type Schemas = components["schemas"];
export type Run = Schemas["TrainingState"];
export type News = Schemas["RunNews"];
export type Records = Schemas["RunRecord"][];
export type TrainRequest = Schemas["TrainRequest"];
export type Suggestion = Schemas["Suggested"];
export type Figure = "loss" | "valid_loss" | "bits_per_byte" | "grad_norm" | "lr" | "tokens_per_second";
export type Line = { name: string; points: [step: number, value: number][]; dots?: boolean; faint?: boolean };

export const listRuns = () => json<Schemas["TrainingList"]>("/studio/train");
export const startRun = (asked: TrainRequest) => json<Run>("/studio/train/start", asked);
export const stopRun = (run: string) => json<Run>("/studio/train/stop", { run });
export const resumeRun = (run: string, how: { minutes?: number; calmer?: boolean } = {}) =>
  json<Run>("/studio/train/resume", { run, ...how });
export const readRun = (run: string, signal?: AbortSignal) => json<News>("/studio/train/read", { run }, signal);
export const suggest = async (size: number) =>
  (await json<Schemas["Suggestions"]>("/studio/train/suggest", { size })).suggestions;

export const watchRun = (run: string, onnews: (news: News) => void, watching: Watching) =>
  compute<News>("/studio/train/watch", { run }, { ...watching, piece: (news) => onnews(news as News) });

/** What was known with what is new. */
export const joined = (records: Records, news: News): Records =>
  news.again ? news.records : news.records.length ? [...records, ...news.records] : records;

/** One figure by step. */
export const points = (records: Records, figure: Figure): [number, number][] =>
  records.flatMap((one) => (typeof one[figure] === "number" ? [[one.step, one[figure]] as [number, number]] : []));

export type Sample = { step: number; prompt: string; sample: string };
export const samples = (records: Records): Sample[] =>
  records.flatMap(({ step, prompt, sample }) =>
    typeof sample === "string" ? [{ step, prompt: prompt ?? "", sample }] : [],
  );

/** Those of the last evaluation up to a step; before the first, those of the first. */
export function samplesAt(all: Sample[], step: number): Sample[] {
  const last = all.filter((one) => one.step <= step).at(-1) ?? all[0];
  return last ? all.filter((one) => one.step === last.step) : [];
}

/** Of increasing numbers the nearest to one; null of none. */
export function nearest(steps: readonly number[], step: number): number | null {
  let best: number | null = null;
  for (const one of steps) if (best === null || Math.abs(one - step) <= Math.abs(best - step)) best = one;
  return best;
}

export const running = (run: Run | undefined) => run?.state === "running" || run?.state === "stopping";

/** Whether a model is this run, or one of its steps. */
export const isOf = (run: Run, model: string) =>
  run.model !== null && (model === run.model || model.startsWith(`${run.model.slice(-50)}.step-`));

/** A name for a training, made of a file's: what a folder may be called, and not taken. */
export function freeName(file: string, taken: readonly string[]): string {
  const plain = file
    .replace(/\.[^.]*$/, "")
    .replace(/[^A-Za-z0-9_-]+/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 40);
  const base = plain || "run";
  for (let n = 1; ; n++) {
    const name = n === 1 ? base : `${base}-${n}`;
    if (!taken.includes(name)) return name;
  }
}

export const size = (bytes: number): string =>
  bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : bytes >= 1e3 ? `${Math.round(bytes / 1e3)} kB` : `${bytes} B`;
