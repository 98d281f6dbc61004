// What all pages share: which model reads which text, what is selected, how it looks. The address holds all of it,
// so that a link opens the same view.
import type { About, Listed, Subject } from "./api";

/** A text before a model, as the list of models names it, or before one step of a run. */
export type Side = { model: string; text: string; source: string | null; step: number | null };
export type Language = "en" | "zh";
export type Theme = "auto" | "light" | "dark";

const numbers = ["layer", "head", "position", "neuron", "feature"] as const;
type Selected = Record<(typeof numbers)[number], number | null>;
type Which = Pick<Side, "model" | "step">;

export const keyOf = ({ model, step }: Which): string => (step === null ? model : `${model}@${step}`);

class View {
  page = $state("tokens");
  /** What is asked about; `other` is what it is compared with, where something is. */
  side = $state<Side>({ model: "", text: "", source: null, step: null });
  other = $state<Partial<Side> | null>(null);
  /** One selection that every page follows. `token` is a text: the answer that is asked about. */
  selected = $state<Selected & { token: string | null; minus: string | null }>({
    layer: null, head: null, position: null, neuron: null, feature: null, token: null, minus: null,
  }); // prettier-ignore
  /** What is chosen within pages (a chapter, a tab, a tool), by page and name; see `Place`. */
  within = $state<Record<string, Record<string, string>>>({});
  language = $state<Language>("en");
  theme = $state<Theme>("auto");
  /** Grows whenever the colours change: whoever paints a canvas reads it. */
  painted = $state(0);

  listed = $state<Listed>({ version: "", ready: false, models: [] });
  /** Names that the server gave what was opened, by `keyOf`: a step of a run is a model by itself. */
  opened = $state<Record<string, string>>({});
  /** Facts of models that were opened, by those names. */
  facts = $state<Record<string, About>>({});

  /** What A is compared with, whole; null: nothing. */
  get sideB(): Side | null {
    if (!this.other) return null;
    const { model, step, text, source } = { ...this.side, ...defined(this.other) };
    return { model, text, source, step: this.other.model === undefined ? step : (this.other.step ?? null) };
  }

  get about(): About | undefined {
    return this.facts[this.subject.model];
  }

  get subject(): Subject {
    return this.subjectOf(this.side);
  }

  /** The other subject of a comparison. */
  get compared(): Subject | null {
    return this.sideB && this.subjectOf(this.sideB);
  }

  private subjectOf(side: Side): Subject {
    const { text, source } = side;
    return { model: this.opened[keyOf(side)] ?? "", text, source };
  }

  select(changes: Partial<View["selected"]>): void {
    Object.assign(this.selected, changes);
  }
}

/** A choice within a page, which the address holds: one of a few; until one is chosen, or where the address says what
 * there is not, the first. */
export class Place<T extends string> {
  constructor(
    private readonly page: string,
    private readonly name: string,
    private readonly options: readonly T[],
  ) {}

  /** What was chosen; null: nothing. */
  get picked(): T | null {
    return this.options.find((one) => one === view.within[this.page]?.[this.name]) ?? null;
  }

  get value(): T {
    return this.picked ?? this.options[0]!;
  }

  set value(to: T) {
    choose(this.page, this.name, to);
  }
}

/** Choose something within a page; empty or null takes the choice away. */
export function choose(page: string, name: string, value: string | null): void {
  const { [name]: _, ...others } = view.within[page] ?? {};
  view.within[page] = value ? { ...others, [name]: value } : others;
}

const defined = (other: Partial<Side>): Partial<Side> =>
  Object.fromEntries(Object.entries(other).filter(([, value]) => value !== undefined));

export const view = new View();

const LONGEST = 900; // encoded characters of a text in the address: servers take a few thousand of all together

/** Texts that are too long for the address, by their names in it. They are kept beside it, in the history of the tab, so
 * that reloading and going back find them; a copied link does not hold them. */
export function longTexts(): Record<string, string> {
  const texts = {
    text: view.side.text,
    source: view.side.source,
    "b.text": view.other?.text,
    "b.source": view.other?.source,
  };
  return Object.fromEntries(Object.entries(texts).filter((one): one is [string, string] => isLong(one[1])));
}

const isLong = (text: string | number | null | undefined): boolean =>
  typeof text === "string" && encodeURIComponent(text).length > LONGEST;

/** The address's query for a view; of another page than the one that is shown, if one is given. */
export function written(page = view.page): string {
  const query = new URLSearchParams();
  const put = (name: string, value: string | number | null | undefined) => {
    if (value !== null && value !== undefined && value !== "" && !isLong(value)) query.set(name, String(value));
  };
  put("page", page);
  for (const name of ["model", "step", "text", "source"] as const) put(name, view.side[name]);
  // a text that was emptied is one, unlike a text that was not given
  for (const name of ["model", "step", "text", "source"] as const)
    if (view.other?.[name] !== undefined && view.other[name] !== null && !isLong(view.other[name]))
      query.set(`b.${name}`, String(view.other[name]));
  for (const name of [...numbers, "token", "minus"] as const) put(name, view.selected[name]);
  for (const [name, value] of Object.entries(view.within[page] ?? {})) put(`at.${name}`, value);
  if (view.language !== "en") put("lang", view.language);
  return `?${query}`;
}

/** Take a view from the address's query, and from the long texts that are kept beside it. */
export function read(search: string, kept: Record<string, string> | null = null): void {
  const query = new URLSearchParams(search);
  const text = (name: string) => kept?.[name] ?? query.get(name);
  const count = (name: string) => (/^\d{1,9}$/.test(text(name) ?? "") ? Number(text(name)) : null);
  view.page = text("page") ?? view.page;
  view.side = { model: text("model") ?? "", text: text("text") ?? "", source: text("source"), step: count("step") };
  const other: Partial<Side> = {};
  for (const name of ["model", "text", "source"] as const)
    if (text(`b.${name}`) !== null) other[name] = text(`b.${name}`)!;
  if (count("b.step") !== null) other.step = count("b.step");
  view.other = Object.keys(other).length ? other : null;
  for (const name of numbers) view.selected[name] = count(name);
  view.selected.token = text("token");
  view.selected.minus = text("minus");
  const within: Record<string, string> = {};
  for (const [name, value] of query) if (name.startsWith("at.") && value) within[name.slice(3)] = value;
  view.within = { ...view.within, [view.page]: within };
  const language = text("lang") ?? localStorage.getItem("language") ?? navigator.language.slice(0, 2);
  view.language = language === "zh" ? "zh" : "en";
  const theme = localStorage.getItem("theme");
  view.theme = theme === "light" || theme === "dark" ? theme : "auto";
}

/** Keep the address as the view is. Another page, model, text, comparison, or chapter or tab of a page is a new entry of
 * the history; what is selected changes the entry. */
export function keepAddress(): void {
  const placed = () => {
    const { pins: _, ...within } = view.within[view.page] ?? {};
    return JSON.stringify([view.page, view.side, view.other, within]);
  };
  let place = placed();
  $effect(() => {
    const [query, now, long] = [written(), placed(), longTexts()];
    const begun = (JSON.parse(place) as [string, Side])[1].model !== ""; // what is chosen at the start is no step
    if (query !== location.search || JSON.stringify(long) !== JSON.stringify(history.state ?? {})) {
      if (now !== place && begun) history.pushState(long, "", query);
      else history.replaceState(long, "", query);
    }
    place = now;
  });
  $effect(() => {
    document.documentElement.lang = view.language;
    localStorage.setItem("language", view.language);
  });
  $effect(() => localStorage.setItem("theme", view.theme));
}
