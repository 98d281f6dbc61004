// @vitest-environment jsdom
import { fireEvent, render, screen, waitFor } from "@testing-library/svelte";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { LedgerResult } from "../src/lib/api";
import { drawer, keyOf } from "../src/lib/ledger.svelte";
import LedgerLevel from "../src/parts/LedgerLevel.svelte";
import { called } from "../src/parts/ledgerWords";
import { view } from "../src/lib/state.svelte";

const api = vi.hoisted(() => ({ ledger: vi.fn(), expand: vi.fn(), trace: vi.fn() }));
vi.mock("../src/lib/api", async (load) => ({ ...(await load<object>()), ...api }));

const term = (name: string, value: number, opens = true) => ({ name, value, label: "", opens, frozen: "", spread: 0 });
const made = (what: string, terms: ReturnType<typeof term>[], total?: number) =>
  ({
    picture: "ledger",
    what,
    unit: "logits",
    terms,
    total: total ?? terms.reduce((sum, { value }) => sum + value, 0),
    error: 1e-7,
    checkable: false,
    receipt: { code: "result = ledger(model)\n", gap: 0, milliseconds: 1, bytes: 0, difference: 0, dtype: "float32" },
  }) as unknown as LedgerResult;
const ROOT = made("logit", [term("layers.0.mlp", 2), term("layers.1.head.0", -3), term("embed", 0.5, false)]);
const HEAD = made("head", [term("source.0", -1), term("source.1", -2)]);
const subject = { model: "m", text: "t", source: null };

beforeEach(() => {
  view.language = "en";
  Element.prototype.scrollIntoView = vi.fn();
  api.ledger.mockResolvedValue({ id: "1", result: ROOT });
  api.expand.mockImplementation(async (_: string, path: string[]) =>
    path.length === 1 ? HEAD : made(path.join(" "), [term("embed", -2, false)]),
  );
});
afterEach(() => {
  drawer.close();
  vi.clearAllMocks();
});

it("opens a number with a path below it, and knows the way", async () => {
  await drawer.show(subject, { token: "x" }, ["layers.1.head.0", "source.1"]);
  expect(api.ledger).toHaveBeenCalledWith(subject, { token: "x" }, expect.anything());
  expect(drawer.trail).toEqual(["layers.1.head.0", "source.1"]);
  expect(drawer.crumbs.map(({ term }) => term.value)).toEqual([-3, -2]);
  expect(drawer.code).toContain('level = result.path("layers.1.head.0", "source.1")');
});

it("closes a level with all that is below it", async () => {
  await drawer.show(subject, {}, ["layers.1.head.0", "source.1"]);
  await drawer.toggle(["layers.1.head.0"]);
  expect(drawer.levels.size).toBe(0);
  expect(drawer.trail).toEqual([]);
  expect(drawer.code).toBe(ROOT.receipt.code);
});

it("asks for each level once, also when it was fetched ahead", async () => {
  await drawer.show(subject, {});
  drawer.ahead(["layers.1.head.0"]);
  await drawer.unfold(["layers.1.head.0"]);
  await drawer.toggle(["layers.1.head.0"]);
  await drawer.toggle(["layers.1.head.0"]);
  expect(api.expand).toHaveBeenCalledTimes(1);
});

it("opens the number anew when the server has let it go", async () => {
  const { Failure } = await import("../src/lib/api");
  await drawer.show(subject, {});
  api.expand.mockRejectedValueOnce(new Failure("gone", "result_gone", 404));
  api.ledger.mockResolvedValueOnce({ id: "2", result: ROOT });
  await drawer.unfold(["layers.0.mlp"]);
  expect(api.expand).toHaveBeenLastCalledWith("2", ["layers.0.mlp"]);
  expect(drawer.levels.has("layers.0.mlp")).toBe(true);
});

it("tells what went wrong beside the term, and in place of the number", async () => {
  await drawer.show(subject, {});
  api.expand.mockRejectedValueOnce(new Error("no such term"));
  await drawer.unfold(["layers.0.mlp"]);
  expect(drawer.troubles.get("layers.0.mlp")).toBe("no such term");
  api.ledger.mockRejectedValueOnce(new Error("not one token"));
  await drawer.again({ token: "two words" });
  expect(drawer.message).toBe("not one token");
  expect(drawer.open).toBeNull();
});

it("follows the largest with all levels of one answer", async () => {
  await drawer.show(subject, {});
  const path = ["layers.1.head.0", "source.1", "embed"];
  api.trace.mockResolvedValueOnce({ id: "1", path, levels: [HEAD, made("value", [term("embed", -2, false)])] });
  expect(drawer.ended).toBe(false);
  expect(await drawer.follow([])).toEqual(path);
  expect(drawer.ended).toBe(true); // nothing is below the embedding
  expect([...drawer.levels.keys()]).toEqual([keyOf(path.slice(0, 1)), keyOf(path.slice(0, 2))]);
  expect(api.expand).not.toHaveBeenCalled();
});

it("shows terms by size or in order, their sum, the number and the error", async () => {
  await drawer.show(subject, {});
  const { container } = render(LedgerLevel, { ledger: ROOT, path: [] });
  const names = () => [...container.querySelectorAll<HTMLElement>("[data-term]")].map(({ dataset }) => dataset.term);
  expect(names()).toEqual(["layers.1.head.0", "layers.0.mlp", "embed"]);
  expect([...container.querySelectorAll("dd")].map(({ textContent }) => textContent)).toEqual([
    "−0.5000",
    "−0.5000",
    "1.0e−7",
  ]);
  await fireEvent.click(screen.getByText("layer 1 head 0"));
  await waitFor(() => expect(container.querySelectorAll("[data-level]").length).toBe(2));
  expect(container.querySelector("[aria-expanded=true]")?.textContent).toContain("layer 1 head 0");
});

it("shows the first of many terms, the rest as one, and finds any", async () => {
  const many = made(
    "by neuron",
    Array.from({ length: 100 }, (_, i) => term(`neuron.${i}`, 100 - i)),
  );
  const { container } = render(LedgerLevel, { ledger: many, path: [] });
  const rows = () => container.querySelectorAll("[data-term]").length;
  expect(rows()).toBe(12);
  expect(container.textContent).toContain("88 more, together");
  const rest = Array.from({ length: 88 }, (_, i) => 88 - i).reduce((a, b) => a + b);
  expect(container.textContent).toContain(`+${rest}`);
  await fireEvent.click(screen.getByText(/88 more/));
  expect(rows()).toBe(72);
  await fireEvent.input(screen.getByRole("searchbox"), { target: { value: "neuron 97" } });
  expect(rows()).toBe(1);
});

it.each([
  ["layers.3.head.1", "en", "layer 3 head 1"],
  ["layers.3.cross_head.1", "en", "layer 3 cross head 1"],
  ["source.4", "en", "4"],
  ["layers.3.head.1", "zh", "层 3 头 1"],
  ["neuron.17", "zh", "神经元 17"],
] as const)("calls %s in %s", (name, language, said) => {
  view.language = language;
  expect(called({ name, label: "" }).said).toBe(said);
});
