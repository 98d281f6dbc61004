// From an empty page to a living one: which models there are, those of the view opened, a text to read; and back to it
// when the server was away.
import { untrack } from "svelte";
import { addHub, Failure, listModels, openModel, server, type About } from "./api";
import { keyOf, view } from "./state.svelte";

/** What went wrong with the list or a model, to be shown in the frame. */
export const trouble = $state<{ message: string; code: string | null }>({ message: "", code: null });
/** Models that are being opened, by `keyOf`. */
export const opening = $state<Record<string, true>>({});

const BEAT = 700; // ms between two questions whether the server is there again
const wait = (ms: number) => new Promise((done) => setTimeout(done, ms));
const failed = new Set<string>();

export async function refresh(): Promise<void> {
  view.listed = await listModels();
}

/** Read the list, once the models that were given at the start are there; nothing was chosen: the first of it. */
export async function start(): Promise<void> {
  forget();
  try {
    await refresh();
    while (!view.listed.ready) {
      await wait(250);
      await refresh();
    }
    const first = view.listed.models[0];
    if (!view.side.model && first) view.side = { ...view.side, model: first.name, step: null };
  } catch (error) {
    told(error);
  }
}

/** Open whatever the view is about, as soon as it changes; and when the server went away, wait for it. */
export function followModels(): void {
  $effect(() => {
    if (!view.listed.ready || server.gone) return;
    for (const side of [view.side, view.sideB])
      if (side?.model && !view.opened[keyOf(side)]) {
        const { model, step } = side;
        untrack(() => void opened(model, step));
      }
  });
  $effect(() => {
    if (!server.gone) return;
    let waiting = true;
    void (async () => {
      while (waiting) {
        await wait(BEAT);
        try {
          await listModels();
          await again();
          waiting = false;
        } catch (error) {
          told(error);
        }
      }
    })();
    return () => (waiting = false);
  });
}

/** Open again what the view is about: a server that was started anew has opened nothing. Pages stay, and with them what
 * was typed there. */
async function again(): Promise<void> {
  await start();
  const shown = [view.side, view.sideB].filter((side) => side?.model).map((side) => side!);
  const keys = shown.map(keyOf);
  for (const key of Object.keys(view.opened)) if (!keys.includes(key)) delete view.opened[key];
  for (const { model, step } of shown) {
    const key = keyOf({ model, step });
    try {
      put(key, await openModel(model, step ?? undefined));
    } catch (error) {
      if (error instanceof Failure && error.code === "gone") throw error;
      delete view.opened[key];
      failed.add(key);
      told(error);
    }
  }
  server.gone = false;
  server.back += 1;
}

function put(key: string, about: About): void {
  view.facts[about.name] = about;
  view.opened[key] = about.name;
}

async function opened(model: string, step: number | null): Promise<void> {
  const key = keyOf({ model, step });
  if (opening[key] || failed.has(key)) return;
  opening[key] = true;
  try {
    put(key, await openModel(model, step ?? undefined));
    if (keyOf(view.side) === key) settle();
  } catch (error) {
    if (!(error instanceof Failure && error.code === "gone")) failed.add(key);
    told(error);
  } finally {
    delete opening[key];
  }
}

/** Give the model something to read, where nothing was given. */
function settle(): void {
  const about = view.about!;
  const source = about.has.includes("source") ? (view.side.source ?? "The cat sat on the mat.") : null;
  const text = view.side.text || textFor(about.kind);
  if (source !== view.side.source || text !== view.side.text) view.side = { ...view.side, source, text };
}

/** Ask all pages about another model, or a step of a run. */
export function open(model: string, step?: number): void {
  forget();
  view.side = { ...view.side, model, step: step ?? null };
  if (view.about) settle();
}

/** Compare with another model, or step. */
export function compareWith(model: string, step?: number): void {
  forget();
  view.other = { ...view.other, model, step: step ?? undefined };
}

/** What people call a model of the list. */
export const named = (model: string): string => view.listed.models.find(({ name }) => name === model)?.about ?? model;

/** List a model of the hub; the name under which it is opened. */
export async function add(hub: string): Promise<string> {
  const { name } = await addHub(hub);
  await refresh();
  return name;
}

function forget(): void {
  failed.clear();
  [trouble.message, trouble.code] = ["", null];
}

function told(error: unknown): void {
  if (error instanceof Failure && error.code === "gone") return; // the frame says so by itself
  trouble.message = error instanceof Error ? error.message : String(error);
  trouble.code = error instanceof Failure ? error.code : null;
}

const textFor = (kind: string): string =>
  kind === "seq2seq"
    ? "Die Katze"
    : view.language === "zh"
      ? "法国的首都是巴黎，意大利的首都是"
      : "When Mary and John went to the store, John gave a drink to";
