// From an empty page to a living one: which models there are, the first of them opened, a text to read.
import { Failure, listModels, openModel } from "./api";
import { view } from "./state.svelte";

/** What went wrong with the server or the model, to be shown in the frame. */
export const trouble = $state<{ message: string; code: string | null }>({ message: "", code: null });
export const opening = $state<{ model: string }>({ model: "" });

const wait = (ms: number) => new Promise((done) => setTimeout(done, ms));

export async function refresh(): Promise<void> {
  view.listed = await listModels();
}

export async function start(): Promise<void> {
  trouble.message = "";
  try {
    await refresh();
    while (!view.listed.ready) {
      await wait(250);
      await refresh();
    }
    const first = view.listed.models.find(({ name }) => name === view.side.model) ?? view.listed.models[0];
    if (view.side.model || first) await open(view.side.model || first!.name);
    if (view.other?.model) await facts(view.other.model);
  } catch (error) {
    told(error);
  }
}

async function facts(model: string, step?: number): Promise<string> {
  opening.model = model;
  try {
    const about = await openModel(model, step);
    view.facts[about.name] = about;
    return about.name;
  } finally {
    opening.model = "";
  }
}

/** Ask all pages about another model, or a step of a run. */
export async function open(model: string, step?: number): Promise<void> {
  trouble.message = "";
  try {
    const name = await facts(model, step);
    view.side = {
      ...view.side,
      model: name,
      step: step ?? null,
      text: view.side.text || textFor(view.facts[name]!.kind),
    };
    if (view.facts[name]!.has.includes("source")) view.side.source ??= "The cat sat on the mat.";
    else view.side.source = null;
  } catch (error) {
    told(error);
  }
}

/** Compare with another model. */
export async function compareWith(model: string, step?: number): Promise<void> {
  try {
    view.other = { ...view.other, model: await facts(model, step) };
  } catch (error) {
    told(error);
  }
}

function told(error: unknown): void {
  trouble.message = error instanceof Error ? error.message : String(error);
  trouble.code = error instanceof Failure ? error.code : null;
}

const textFor = (kind: string): string =>
  kind === "seq2seq"
    ? "Die Katze"
    : view.language === "zh"
      ? "法国的首都是巴黎,意大利的首都是"
      : "When Mary and John went to the store, John gave a drink to";
