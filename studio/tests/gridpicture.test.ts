// @vitest-environment jsdom
// A grid on a canvas that counts what is drawn: jsdom has none.
import { cleanup, fireEvent, render, screen } from "@testing-library/svelte";
import { flushSync } from "svelte";
import { afterEach, beforeAll, beforeEach, expect, it, vi } from "vitest";
import Grid from "../src/parts/Grid.svelte";
import type { Window } from "../src/lib/grid";

let drawn: Record<string, number> = {};
beforeAll(() => {
  const context = new Proxy({} as Record<string, unknown>, {
    get: (of, name: string) => of[name] ?? ((..._: unknown[]) => void (drawn[name] = (drawn[name] ?? 0) + 1)),
  });
  vi.spyOn(HTMLCanvasElement.prototype, "getContext").mockReturnValue(context as never);
  vi.spyOn(window, "getComputedStyle").mockReturnValue({
    getPropertyValue: (name: string) => (name === "--oranges" || name === "--blues" ? "#ffffff #000000" : "#111"),
  } as never);
  vi.stubGlobal("ImageData", class {
    data: Uint8ClampedArray;
    constructor(readonly width: number, readonly height: number) {
      this.data = new Uint8ClampedArray(4 * width * height);
    }
  }); // prettier-ignore
  vi.stubGlobal("ResizeObserver", class {
    observe() {}
    unobserve() {}
    disconnect() {}
  }); // prettier-ignore
  Object.defineProperty(HTMLElement.prototype, "clientWidth", { get: () => 600 });
});
beforeEach(() => void (drawn = {}));
afterEach(cleanup);

const names = (n: number) => Array.from({ length: n }, (_, i) => `t${i}`);
const shown = (rows: number, columns: number, more: object = {}) =>
  render(Grid, {
    label: "weights",
    rows: names(rows),
    columns: names(columns),
    value: (i: number, j: number) => (i + j) / (rows + columns),
    describe: (i: number, j: number) => [[`row ${i}`, `column ${j}`] as [string, string]],
    ...more,
  });
const said = () => screen.getByRole("status").textContent?.trim();

it("follows the arrow keys, stays inside, and picks", async () => {
  const onpick = vi.fn();
  shown(4, 5, { onpick, chosen: [1, 1] });
  const canvas = screen.getByLabelText("weights");
  const press = (...keys: string[]) => keys.map((key) => fireEvent.keyDown(canvas, { key }));
  await Promise.all(press("ArrowRight"));
  expect(said()).toBe("row 1 column 1"); // the first press goes to what is chosen
  await Promise.all(press("ArrowRight", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown"));
  expect(said()).toBe("row 3 column 2");
  await Promise.all(press("Home", "Enter"));
  expect(onpick).toHaveBeenCalledExactlyOnceWith(3, 0);
});

it("draws its bitmap once, however the cursor moves", async () => {
  shown(30, 30);
  flushSync();
  const before = drawn.drawImage;
  expect(before).toBeGreaterThan(0);
  const canvas = screen.getByLabelText("weights");
  for (let k = 0; k < 20; k++) await fireEvent.keyDown(canvas, { key: k % 2 ? "ArrowRight" : "ArrowDown" });
  expect(said()).toBe("row 9 column 10");
  expect(drawn.drawImage).toBe(before);
});

it("zooms a large matrix to the cursor, tells which part is seen, and follows the cursor there", async () => {
  const windows: Window[] = [];
  shown(1000, 1000, { value: undefined, tiles: [], onwindow: (window: Window) => windows.push(window) });
  flushSync();
  expect(windows.at(-1)).toEqual([0, 1000, 0, 1000]);
  const canvas = screen.getByLabelText("weights");
  await fireEvent.keyDown(canvas, { key: "End" });
  await fireEvent.keyDown(canvas, { key: "End" });
  for (let k = 0; k < 5; k++) await fireEvent.keyDown(canvas, { key: "+" });
  flushSync();
  const [top, bottom, left, right] = windows.at(-1)!;
  expect([top, right]).toEqual([0, 1000]);
  expect(bottom).toBeLessThan(40);
  for (let k = 0; k < 60; k++) await fireEvent.keyDown(canvas, { key: "ArrowDown" });
  flushSync();
  expect(windows.at(-1)!.slice(0, 2)).toEqual([61 - bottom, 61]);
  expect(windows.at(-1)!.slice(2)).toEqual([left, right]);
  await fireEvent.keyDown(canvas, { key: "0" });
  flushSync();
  expect(windows.at(-1)).toEqual([0, 1000, 0, 1000]);
});

it("offers no zoom where every cell has room", () => {
  shown(4, 4);
  expect(screen.queryByText("+")).toBeNull();
});
