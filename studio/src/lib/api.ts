// The server's API. Every function of a page that computes goes through here; errors are sentences to show.
import { silent, told } from "./failures";
import { frames, unpack, type Unpacked } from "./wire";
import type { components } from "./schema";
import { server } from "./server.svelte";

export { server };

type Schemas = components["schemas"];
export type About = Unpacked<Schemas["About"]>;
export type Result = Unpacked<Schemas["AnyResult"]>;
export type Open<R = Result> = { id: string; result: R };
export type Picture = Result["picture"];
export type ResultOf<P extends Picture> = Extract<Result, { picture: P }>;
export type LedgerResult = ResultOf<"ledger">;
export type TokensResult = Unpacked<Schemas["TokensResult"]>;
export type Chances = ResultOf<"chances">;
export type Candidate = Unpacked<Schemas["Candidate"]>;
export type Branch = Schemas["Branch"];
export type Wrote = Schemas["Wrote"];
export type Drawing = Required<Pick<Schemas["RedrawRequest"], "temperature" | "top_k" | "top_p" | "min_p">>;
export type Receipt = Result["receipt"];
export type Listed = Schemas["ListedModels"];
export type Progress = {
  stage: string;
  done: number;
  total: number | null;
  unit: string;
  figures: Record<string, string | number>;
};
export type Plain = string | number | boolean | null | (string | number | boolean | (number | string | null)[])[];
export type Options = Record<string, Plain>;

/** What a page is about: a text before a model. `ids` are read in its place: no text is cut into just these tokens. */
export type Subject = { model: string; text: string; source: string | null; ids?: number[] };

/** What went wrong, in words; `code` says it to programs. */
export class Failure extends Error {
  constructor(
    message: string,
    readonly code: string | null = null,
    readonly status = 0,
  ) {
    super(message);
  }
}

const KEY = "cutaway-token";

/** The token of the address that the studio printed; kept for this tab, and taken out of the address. */
export function takeToken(): void {
  const found = /(?:^#|&)token=([\w-]+)/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(KEY, found[1]!);
  history.replaceState(history.state, "", location.pathname + location.search);
}

async function send(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  if (import.meta.env.MODE === "saved") throw new Failure("A saved page has no server to ask.", "saved");
  const headers: Record<string, string> = {};
  const token = sessionStorage.getItem(KEY);
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer: Response;
  try {
    answer = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw gone("gone");
  }
  if (!answer.ok) throw await failed(answer);
  return answer;
}

function gone(how: "gone" | "broken"): Failure {
  server.gone = true;
  return new Failure(silent(how), "gone");
}

async function failed(answer: Response): Promise<Failure> {
  try {
    const { error } = await answer.json();
    return new Failure(told(error.message, error.code), error.code, answer.status);
  } catch {
    return new Failure(told(`HTTP ${answer.status}`, null), null, answer.status);
  }
}

export async function json<T>(path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  return (await send(path, body, signal)).json();
}

export async function bytes<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  return unpack<T>(await (await send(path, body, signal)).arrayBuffer());
}

export type Watching = { signal?: AbortSignal; progress?: (report: Progress) => void; piece?: (part: unknown) => void };

/** A route that answers in frames; aborting the signal ends the work there. */
export async function compute<T>(path: string, body: unknown, watching: Watching = {}): Promise<T> {
  const answer = await send(path, body, watching.signal);
  const read = (body: ArrayBuffer) => JSON.parse(new TextDecoder().decode(body));
  const coming = frames(answer.body!);
  for (;;) {
    const next = await coming.next().catch((error) => {
      throw watching.signal?.aborted ? error : gone("broken");
    });
    if (next.done) throw new Failure(silent("broken"), "broken");
    const { kind, body } = next.value;
    if (kind === "p") watching.progress?.(read(body));
    else if (kind === "d") watching.piece?.(read(body));
    else if (kind === "r") return unpack<T>(body);
    else {
      const { error } = read(body);
      throw new Failure(told(error.message, error.code), error.code);
    }
  }
}

export const analyse = <R extends Result>(subject: Subject, analysis: string, options: Options, watching?: Watching) =>
  compute<Open<R>>("/studio/analyse", { ...subject, analysis, options }, watching);

/** A number opened: by `cutaway.interp.ledger`, or by the analysis that the options name, such as gradient_by_token. */
export const ledger = (subject: Subject, { analysis, ...options }: Options, watching?: Watching) =>
  analysis
    ? analyse<LedgerResult>(subject, String(analysis), options, watching)
    : compute<Open<LedgerResult>>("/studio/ledger", { ...subject, options }, watching);

export const expand = async (id: string, path: string[], signal?: AbortSignal) =>
  (await bytes<Open<LedgerResult>>("/studio/expand", { id, path }, signal)).result;

/** From a level of a ledger down to the input, by the largest term that leads further. */
export const trace = (id: string, path: string[], signal?: AbortSignal) =>
  bytes<Unpacked<Schemas["Traced"]>>("/studio/trace", { id, path }, signal);

export const tryOut = (id: string, watching?: Watching) =>
  compute<Open<ResultOf<"panel">>>("/studio/check", { id }, watching);

export const page = async (id: string) => (await send("/studio/page", { id })).blob();

/** Chances that are open, under other options of drawing the next token. */
export const redraw = (id: string, drawing: Drawing, shown: number, signal?: AbortSignal) =>
  bytes<Open<Chances>>("/studio/redraw", { id, shown, ...drawing }, signal);

/** Go on with a text, a token at a time; aborting the signal stops the writing. */
export const write = (
  subject: Subject,
  options: Drawing & { seed: number; max_tokens: number },
  token: (one: Wrote) => void,
  signal: AbortSignal,
) =>
  compute<Open<TokensResult>>(
    "/studio/write",
    { ...subject, ...options },
    {
      signal,
      piece: (part) => token(part as Wrote),
    },
  );

/** The text of tokens, without those that stand for none. */
export const textOf = async (model: string, ids: number[]) =>
  (await json<Schemas["Spelled"]>("/studio/text", { model, ids })).text;

/** The lines of Python that make a result here. */
export const code = async (id: string) => (await json<Schemas["ResultCode"]>("/studio/code", { id })).code;

export const addHub = (hub: string) => json<Schemas["Named"]>("/studio/hub", { hub });

export const openModel = (model: string, step?: number, signal?: AbortSignal) =>
  bytes<About>("/studio/open", step === undefined ? { model } : { model, step }, signal);

export const listModels = () => json<Listed>("/studio/models");

/** The stored example (studio/example.py). */
export async function example(): Promise<{ about: About; text: string; results: Result[] }> {
  return unpack(await (await send("/example.bin", undefined)).arrayBuffer());
}
