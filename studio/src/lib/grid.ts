// What a picture of rows × columns is made of: the part of it that is seen, bitmaps of its numbers, names beside it.
import type { Ramp } from "./colour.svelte";

/** First row, behind the last row, first column, behind the last column. */
export type Window = [top: number, bottom: number, left: number, right: number];

/** Numbers for a part of a matrix; where there are fewer than cells, each is the strongest of those it covers. */
export type Tile = { window: Window; rows: number; columns: number; numbers: ArrayLike<number> };

const clamp = (x: number, low: number, high: number) => Math.max(low, Math.min(high, x));
const LEAST = 4; // cells that a window shows, each way

/** The strongest of the numbers under each cell of a smaller matrix; NaN where there is none. */
export function shrunk(value: (row: number, column: number) => number, window: Window, most: number): Tile {
  const [top, bottom, left, right] = window;
  const [rows, columns] = [Math.min(bottom - top, most), Math.min(right - left, most)];
  const numbers = new Float32Array(rows * columns).fill(NaN);
  for (let i = top; i < bottom; i++) {
    const start = Math.floor(((i - top) * rows) / (bottom - top)) * columns;
    for (let j = left; j < right; j++) {
      const v = value(i, j);
      if (v !== v) continue;
      const at = start + Math.floor(((j - left) * columns) / (right - left));
      if (!(Math.abs(numbers[at]!) >= Math.abs(v))) numbers[at] = v;
    }
  }
  return { window, rows, columns, numbers };
}

const STEPS = 512;

/** Colours of -1 … 1 as they lie in an image, so that a million cells take milliseconds. */
export function table(paint: Ramp): Uint32Array {
  const bytes = new Uint8ClampedArray(4 * (2 * STEPS + 1));
  for (let k = -STEPS; k <= STEPS; k++) bytes.set([...paint(k / STEPS), 255], 4 * (k + STEPS));
  return new Uint32Array(bytes.buffer);
}

/** Put numbers, divided by the largest, into an image's pixels; what is no number stays transparent. */
export function fill(pixels: Uint32Array, numbers: ArrayLike<number>, colours: Uint32Array, most = 1): void {
  for (let k = 0; k < numbers.length; k++) {
    const v = numbers[k]! / most;
    pixels[k] = v !== v ? 0 : colours[STEPS + Math.round(STEPS * (v < -1 ? -1 : v > 1 ? 1 : v))]!;
  }
}

/** A cell's number in a tile; undefined where the tile does not show that cell, or not by itself. */
export function exact(tile: Tile | null | undefined, row: number, column: number): number | undefined {
  if (!tile) return undefined;
  const [top, bottom, left, right] = tile.window;
  if (row < top || row >= bottom || column < left || column >= right) return undefined;
  if (tile.rows < bottom - top || tile.columns < right - left) return undefined;
  return tile.numbers[(row - top) * tile.columns + column - left];
}

/** The number of a tile over a cell, that of the strongest around it where the tile is coarse. */
export function near(tile: Tile | null | undefined, row: number, column: number): number | undefined {
  if (!tile) return undefined;
  const [top, bottom, left, right] = tile.window;
  if (row < top || row >= bottom || column < left || column >= right) return undefined;
  const i = Math.floor(((row - top) * tile.rows) / (bottom - top));
  return tile.numbers[i * tile.columns + Math.floor(((column - left) * tile.columns) / (right - left))];
}

/** A window that shows a part (factor below 1) or more of what this one shows, around a cell that stays where it is. */
export function zoomed(window: Window, factor: number, at: [number, number], rows: number, columns: number): Window {
  const side = (first: number, last: number, fixed: number, count: number): [number, number] => {
    const size = clamp(Math.round((last - first) * factor), Math.min(LEAST, count), count);
    const share = (fixed + 0.5 - first) / (last - first);
    const start = clamp(Math.round(fixed + 0.5 - share * size), 0, count - size);
    return [start, start + size];
  };
  return [...side(window[0], window[1], at[0], rows), ...side(window[2], window[3], at[1], columns)];
}

/** The same window elsewhere. */
export function moved(window: Window, down: number, right: number, rows: number, columns: number): Window {
  const i = clamp(Math.round(down), -window[0], rows - window[1]);
  const j = clamp(Math.round(right), -window[2], columns - window[3]);
  return [window[0] + i, window[1] + i, window[2] + j, window[3] + j];
}

/** The window moved as little as shows a cell. */
export function showing(window: Window, [i, j]: [number, number], rows: number, columns: number): Window {
  const by = (x: number, first: number, last: number) => (x < first ? x - first : x >= last ? x - last + 1 : 0);
  return moved(window, by(i, window[0], window[1]), by(j, window[2], window[3]), rows, columns);
}

/** Every how manieth name has room, where a cell has so many pixels. */
export const every = (cell: number, room = 13): number => Math.max(1, Math.ceil(room / cell));

/** A name with its outer spaces to be seen, cut to so many characters. */
export function short(text: string, most: number): string {
  const part = /^(encoder\.)?layers\.(\d+)\.(.+)$/.exec(text); // of the network: it has a shorter name
  if (part) text = `${part[1] ? "e" : ""}L${part[2]} ${part[3]!.replace(/head\./, "h")}`;
  const letters = [...text.replace(/^ +| +$/g, (spaces) => "·".repeat(spaces.length))];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : letters.join("");
}
