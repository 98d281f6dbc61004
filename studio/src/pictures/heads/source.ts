// Heads to be looked at, wherever their numbers are: here already, or with the server, which sends what is shown.
import { bytes, type ResultOf } from "../../lib/api";
import type { components } from "../../lib/schema";
import type { Tile, Window } from "../../lib/grid";
import type { Numbers, Tensor, Unpacked } from "../../lib/wire";

type Schemas = components["schemas"];
export type By = "weight" | "output" | "score";
export type Row = Partial<Record<By, ArrayLike<number>>>;
type Place = { layer: number; head: number };

export type Heads = {
  tokens: string[];
  keys: string[];
  causal: boolean;
  /** Where the first token stands in its text, and the first key: of a long text only the last may be here. */
  first: number;
  firstKey: number;
  layers: number;
  heads: number;
  shown: [number, number];
  /** Of each head the kind it is most like, and how much. */
  kinds: readonly (readonly (readonly [string, number])[])[];
  /** Kinds that there are, with what attention to everything alike would have. */
  uniform: Record<string, number>;
  ways: By[];
  /** Activation of the patterns, with * for the layer; null where no ledger opens them. */
  name: string | null;
  small: { rows: number; columns: number; of: (place: Place) => ArrayLike<number> };
  tile: (place: Place, by: By, window: Window, rows: number, columns: number) => Promise<Tile>;
  row: (place: Place, query: number) => Promise<Row>;
  /** The strongest keys of every query, of one head or of all of a layer; null where nobody sorts them. */
  lines: ((layer: number, head: number | null, each: number) => Promise<Lines>) | null;
};
/** (H, T, K): keys, and their weights. */
export type Lines = { key: Tensor; weight: Tensor };

const SQUARES = Float32Array.from({ length: 256 }, (_, k) => (k / 255) ** 2);

/** An overview's heads: small pictures are here, the rest is asked for. */
export function ofOverview(result: ResultOf<"heads">, id: string): Heads {
  const [layers = 0, heads = 0, rows = 0, columns = 0] = result.small.shape;
  return {
    tokens: result.tokens,
    keys: result.keys ?? result.tokens,
    causal: result.causal,
    first: 0,
    firstKey: 0,
    layers,
    heads,
    shown: result.shown as [number, number],
    kinds: result.kinds as unknown as Heads["kinds"],
    uniform: result.uniform,
    ways: ["weight", "output", "score"],
    name: result.name,
    small: {
      rows,
      columns,
      of: ({ layer, head }) =>
        Float32Array.from(result.small.at(layer, head).numbers ?? new Uint8Array(rows * columns), (k) => SQUARES[k]!),
    },
    tile: async ({ layer, head }, by, window, rows, columns) => {
      const asked = { id, layer, head, by, rows, columns, window };
      const { tile } = await bytes<Unpacked<Schemas["Tile"]>>("/studio/head", asked);
      return { window, rows: tile.shape[0]!, columns: tile.shape[1]!, numbers: tile.numbers! };
    },
    row: async ({ layer, head }, query) => {
      const found = await bytes<Unpacked<Schemas["HeadRow"]>>("/studio/head/row", { id, layer, head, query });
      return { weight: found.weight.numbers!, output: found.output.numbers!, score: found.score.numbers! };
    },
    lines: (layer, head, each) =>
      bytes<Unpacked<Schemas["HeadLines"]>>("/studio/head/lines", { id, layer, head, each }),
  };
}

/** Patterns as an analysis gives them: of a long text they stay with the server. */
export function ofPatterns(result: ResultOf<"attention">, id: string): Heads {
  const [layers = 0, heads = 0, T = 0, S = 0] = result.patterns.shape;
  const field = "patterns";
  const tile: Heads["tile"] = async ({ layer, head }, _, window, rows, columns) =>
    result.patterns.numbers
      ? { window: [0, T, 0, S], rows: T, columns: S, numbers: result.patterns.at(layer, head).numbers! }
      : tileOf(id, field, [layer, head], window, rows, columns);
  return {
    tokens: result.tokens,
    keys: result.keys ?? result.tokens,
    causal: result.causal,
    first: result.first,
    firstKey: result.keys ? 0 : result.first,
    layers,
    heads,
    shown: result.shown as [number, number],
    kinds: result.habits as unknown as Heads["kinds"],
    uniform: {},
    ways: ["weight"],
    name: null,
    small: { rows: T, columns: S, of: (place) => result.patterns.at(place.layer, place.head).numbers ?? [] },
    tile,
    row: async (place, query) => ({
      weight:
        result.patterns.at(place.layer, place.head, query).numbers ??
        (await tile(place, "weight", [query, query + 1, 0, S], 1, S)).numbers,
    }),
    lines: null,
  };
}

/** A part of a tensor of a result that the server keeps. */
export async function tileOf(
  id: string,
  field: string,
  index: number[],
  window: Window,
  rows: number,
  columns: number,
): Promise<Tile> {
  const asked = { id, field, index, rows, columns, window };
  const { tile } = await bytes<Unpacked<Schemas["Tile"]>>("/studio/tile", asked);
  return { window, rows: tile.shape[0]!, columns: tile.shape[1]!, numbers: tile.numbers as Numbers };
}

/** Runs the newest of what is asked for, one at a time: what was asked for meanwhile and again replaced is never run. */
export class Latest<T> {
  private waiting: (() => Promise<T>) | null = null;
  private running = false;

  constructor(
    private readonly done: (found: T) => void,
    private readonly failed: (error: Error) => void,
  ) {}

  ask(work: () => Promise<T>): void {
    this.waiting = work;
    if (!this.running) void this.run();
  }

  drop(): void {
    this.waiting = null;
  }

  private async run(): Promise<void> {
    this.running = true;
    while (this.waiting) {
      const work = this.waiting;
      this.waiting = null;
      try {
        const found = await work();
        this.done(found);
      } catch (error) {
        if (!this.waiting) this.failed(error as Error);
      }
    }
    this.running = false;
  }
}
