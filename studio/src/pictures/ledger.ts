// A ledger as a picture by itself: its levels below are in it, as far as it has some.
import { SvelteMap } from "svelte/reactivity";
import type { LedgerResult } from "../lib/api";
import { keyOf, type Level, type Levels } from "../lib/ledger.svelte";

export type WithLevels = LedgerResult & { levels?: Record<string, Level> };

/** A ledger whose terms open into the levels that it holds; the others are leaves. */
export class Held implements Levels {
  levels = new SvelteMap<string, Level>();
  passed = new Set<string>();
  troubles = new Map<string, string>();
  readonly ledger: LedgerResult;
  private below: Record<string, Level>;

  constructor(ledger: WithLevels) {
    this.below = ledger.levels ?? {};
    this.ledger = { ...ledger, terms: ledger.terms.map((term) => ({ ...term, opens: term.name in this.below })) };
  }

  toggle(path: string[]): Promise<void> {
    const [key, level] = [keyOf(path), this.below[path[0]!]];
    if (!this.levels.delete(key) && level && path.length === 1) this.levels.set(key, level);
    return Promise.resolve();
  }

  ahead(): void {}
}

/** The heads and the MLP of each layer, by row and column: numbers of terms, NaN where there is none. */
export function mapped(terms: LedgerResult["terms"]): { layers: number; columns: string[]; names: string[][] } | null {
  const found = terms.flatMap(({ name }) => {
    const part = /^layers\.(\d+)\.(?:head\.(\d+)|(mlp))$/.exec(name);
    return part ? [{ name, layer: +part[1]!, column: part[2] ?? "MLP" }] : [];
  });
  if (!found.length) return null;
  const columns = [...new Set(found.map(({ column }) => column))];
  columns.sort((a, b) => +(a === "MLP") - +(b === "MLP") || +a - +b);
  const layers = 1 + Math.max(...found.map(({ layer }) => layer));
  const names = Array.from({ length: layers }, () => columns.map(() => ""));
  for (const { name, layer, column } of found) names[layer]![columns.indexOf(column)] = name;
  return { layers, columns, names };
}
