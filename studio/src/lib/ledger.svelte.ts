// The ledger that is open beside the page: any number of any page opens here, and unfolds down to the input.
import { SvelteMap, SvelteSet } from "svelte/reactivity";
import { expand, Failure, ledger, trace, type LedgerResult, type Open, type Options, type Subject } from "./api";

export type Asked = { subject: Subject; options: Options };
export type Term = LedgerResult["terms"][number];
export type Crumb = { path: string[]; term: Term };

/** A level of a ledger: terms that sum to a number. */
export type Level = Pick<LedgerResult, "what" | "unit" | "terms" | "total" | "error">;

/** The levels that are unfolded below a number, by their paths, wherever more of them come from. */
export type Levels = {
  readonly levels: ReadonlyMap<string, Level>;
  /** Levels of which only the first terms are shown. */
  readonly passed: ReadonlySet<string>;
  /** What went wrong in opening a term, by its path. */
  readonly troubles: ReadonlyMap<string, string>;
  toggle(path: string[]): Promise<void>;
  /** Have a level at hand before it is asked for. */
  ahead(path: string[]): void;
};

export const keyOf = (path: readonly string[]): string => path.join("\n");

/** Terms whose levels are fetched ahead, at a time. */
const AHEAD = 24;

class Drawer implements Levels {
  asked = $state.raw<Asked | null>(null);
  open = $state.raw<Open<LedgerResult> | null>(null);
  message = $state("");
  busy = $state(false);
  /** Levels that are unfolded below the number, by their paths. */
  levels = new SvelteMap<string, LedgerResult>();
  /** Levels that were passed on the way down, of which only the first terms are shown. */
  passed = new SvelteSet<string>();
  /** What went wrong in opening a term, by its path. */
  troubles = new SvelteMap<string, string>();
  /** The path to the level that was opened last. */
  trail = $state.raw<string[]>([]);
  private fetched = new Map<string, Promise<LedgerResult>>();
  /** Where the keyboard was before it opened. */
  private from: HTMLElement | null = null;
  private control: AbortController | null = null;

  /** Open a number, and below it a path of terms. */
  async show(subject: Subject, options: Options, path: string[] = []): Promise<void> {
    this.from ??= document.activeElement instanceof HTMLElement ? document.activeElement : null;
    this.control?.abort();
    const control = (this.control = new AbortController());
    [this.asked, this.message, this.busy] = [{ subject, options }, "", true];
    try {
      const made = await ledger(subject, options, { signal: control.signal });
      if (this.control !== control) return;
      this.clear();
      this.open = made;
      if (path.length) await this.unfold(path);
    } catch (error) {
      if (!control.signal.aborted) [this.message, this.open] = [(error as Error).message, null];
    } finally {
      if (this.control === control) this.busy = false;
    }
  }

  /** Ask for another number of the same text. */
  again(options: Options): Promise<void> {
    return this.show(this.asked!.subject, options);
  }

  close(): void {
    this.control?.abort();
    this.clear();
    [this.asked, this.open, this.message, this.busy] = [null, null, "", false];
    this.from?.focus();
    this.from = null;
  }

  level(path: readonly string[]): LedgerResult | undefined {
    return path.length ? this.levels.get(keyOf(path)) : this.open?.result;
  }

  /** The terms on the way to the level that was opened last. */
  get crumbs(): Crumb[] {
    return this.trail.flatMap((name, depth) => {
      const term = this.level(this.trail.slice(0, depth))?.terms.find((one) => one.name === name);
      return term ? [{ path: this.trail.slice(0, depth + 1), term }] : [];
    });
  }

  /** Have a level at hand before it is asked for. */
  ahead(path: string[]): void {
    if (this.fetched.size < AHEAD && !this.levels.has(keyOf(path))) this.fetch(path).catch(() => undefined);
  }

  async unfold(path: string[]): Promise<void> {
    const key = keyOf(path);
    try {
      for (let depth = 1; depth <= path.length; depth++) {
        const part = path.slice(0, depth);
        const level = this.levels.get(keyOf(part)) ?? (await this.fetch(part));
        this.levels.set(keyOf(part), level);
      }
      this.troubles.delete(key);
      this.trail = path;
    } catch (error) {
      this.troubles.set(key, (error as Error).message);
    }
  }

  fold(path: string[]): void {
    const key = keyOf(path);
    for (const one of [...this.levels.keys()])
      if (one === key || one.startsWith(`${key}\n`)) [this.levels.delete(one), this.passed.delete(one)];
    this.trail = path.slice(0, -1);
  }

  toggle(path: string[]): Promise<void> {
    if (!this.levels.has(keyOf(path))) return this.unfold(path);
    this.fold(path);
    return Promise.resolve();
  }

  /** Whether the way has come to a term with nothing below it. */
  get ended(): boolean {
    return this.trail.length > 0 && !this.levels.has(keyOf(this.trail));
  }

  /** From a level down to the input, by the largest term that leads further. */
  async follow(path: string[]): Promise<string[]> {
    try {
      const { path: passed, levels } = await trace(this.open!.id, path);
      for (const [i, level] of levels.entries()) {
        const part = passed.slice(0, path.length + i + 1);
        this.levels.set(keyOf(part), level);
        this.passed.add(keyOf(part));
      }
      this.trail = passed;
      return passed;
    } catch (error) {
      this.troubles.set(keyOf(path), (error as Error).message);
      return path;
    }
  }

  /** The Python that makes the level that was opened last. */
  get code(): string {
    const code = this.open?.result.receipt.code ?? "";
    const names = this.trail.filter((_, depth) => this.levels.has(keyOf(this.trail.slice(0, depth + 1))));
    if (!names.length) return code;
    const path = names.map((name) => JSON.stringify(name)).join(", ");
    return `${code}level = result.path(${path})\nfor term in level.top():\n    print(term.name, term.label, term.value)\n`;
  }

  private clear(): void {
    this.levels.clear();
    this.passed.clear();
    this.troubles.clear();
    this.fetched.clear();
    this.trail = [];
  }

  private fetch(path: string[]): Promise<LedgerResult> {
    const key = keyOf(path);
    const found = this.fetched.get(key);
    if (found) return found;
    const made = expand(this.open!.id, path).catch(async (error) => {
      this.fetched.delete(key);
      if (!(error instanceof Failure) || error.code !== "result_gone" || !this.asked) throw error;
      this.open = await ledger(this.asked.subject, this.asked.options); // the server has let it go meanwhile
      return expand(this.open.id, path);
    });
    this.fetched.set(key, made);
    void made.finally(() => this.fetched.size >= AHEAD && this.fetched.delete(key)).catch(() => undefined);
    return made;
  }
}

export const drawer = new Drawer();

/** Open a number: `options` are those of `cutaway.interp.ledger`: what, position, token, minus, head, index, quantity;
 * `path` names the terms to unfold below it. */
export const openLedger = (subject: Subject, options: Options, path: string[] = []) =>
  drawer.show(subject, options, path);
