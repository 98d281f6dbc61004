// What all pages share: which model reads which text, what is selected, how it looks. The address holds all of it,
// so that a link opens the same view.
import type { About, Listed, Subject } from "./api";

export type Side = { model: string; text: string; source: string | null; step: number | null };
export type Language = "en" | "zh";
export type Theme = "auto" | "light" | "dark";

const numbers = ["layer", "head", "position", "neuron", "feature"] as const;
type Selected = Record<(typeof numbers)[number], number | null>;

class View {
  page = $state("tokens");
  /** What is asked about; `other` is what it is compared with, where something is. */
  side = $state<Side>({ model: "", text: "", source: null, step: null });
  other = $state<Partial<Side> | null>(null);
  /** One selection that every page follows. `token` is a text: the answer that is asked about. */
  selected = $state<Selected & { token: string | null; minus: string | null }>({
    layer: null, head: null, position: null, neuron: null, feature: null, token: null, minus: null,
  }); // prettier-ignore
  language = $state<Language>("en");
  theme = $state<Theme>("auto");
  /** Grows whenever the colours change: whoever paints a canvas reads it. */
  painted = $state(0);

  listed = $state<Listed>({ version: "", ready: false, models: [] });
  /** Facts of models that were opened, by name (of a step: by the name that the server gave it). */
  facts = $state<Record<string, About>>({});

  get about(): About | undefined {
    return this.facts[this.side.model];
  }

  get subject(): Subject {
    const { model, text, source } = this.side;
    return { model, text, source };
  }

  /** The other subject of a comparison. */
  get compared(): Subject | null {
    return this.other && { ...this.subject, ...clean(this.other) };
  }

  select(changes: Partial<View["selected"]>): void {
    Object.assign(this.selected, changes);
  }
}

const clean = ({ model, text, source }: Partial<Side>): Partial<Subject> =>
  Object.fromEntries(Object.entries({ model, text, source }).filter(([, value]) => value !== undefined));

export const view = new View();

/** The address's query for a view. */
export function written(): string {
  const query = new URLSearchParams();
  const put = (name: string, value: string | number | null | undefined) => {
    if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
  };
  put("page", view.page);
  for (const name of ["model", "text", "source"] as const) put(name, view.side[name]);
  for (const name of ["model", "text", "source"] as const) put(`b.${name}`, view.other?.[name]);
  for (const name of [...numbers, "token", "minus"] as const) put(name, view.selected[name]);
  if (view.language !== "en") put("lang", view.language);
  return `?${query}`;
}

/** Take a view from the address's query. */
export function read(search: string): void {
  const query = new URLSearchParams(search);
  const text = (name: string) => query.get(name);
  view.page = text("page") ?? view.page;
  view.side = { model: text("model") ?? "", text: text("text") ?? "", source: text("source"), step: null };
  const other = {
    model: text("b.model") ?? undefined,
    text: text("b.text") ?? undefined,
    source: text("b.source") ?? undefined,
  };
  view.other = Object.values(other).some((value) => value !== undefined) ? other : null;
  for (const name of numbers) view.selected[name] = text(name) === null ? null : Number(text(name));
  view.selected.token = text("token");
  view.selected.minus = text("minus");
  const language = text("lang") ?? localStorage.getItem("language") ?? navigator.language.slice(0, 2);
  view.language = language === "zh" ? "zh" : "en";
  view.theme = (localStorage.getItem("theme") as Theme | null) ?? "auto";
}

/** Keep the address as the view is: a new page is a new entry of the history, everything else changes the entry. */
export function keepAddress(): void {
  let page = view.page;
  $effect(() => {
    const query = written();
    if (query === location.search) return;
    if (page !== view.page) history.pushState(null, "", query);
    else history.replaceState(null, "", query);
    page = view.page;
  });
  $effect(() => {
    document.documentElement.lang = view.language;
    localStorage.setItem("language", view.language);
  });
  $effect(() => localStorage.setItem("theme", view.theme));
}
