// @vitest-environment jsdom
import { fireEvent, render, screen, within } from "@testing-library/svelte";
import { describe, expect, it, vi } from "vitest";
import type { Branch, Chances, ResultOf } from "../src/lib/api";
import { NEUTRAL, sliders } from "../src/pages/tokens/drawing";
import { bitsOf, grown, merged, rootOf, type Step } from "../src/pages/tokens/fork";
import Picture from "../src/pictures/Chances.svelte";
import Tree from "../src/pictures/Tree.svelte";
import { laidOut } from "../src/pictures/tree";

vi.stubGlobal("ResizeObserver", class {
  observe() {}
  disconnect() {}
}); // prettier-ignore

const step = (id: number, token: string, share: number): Step => ({ id, token, spelled: "", share });
const labels = (branch: Branch): unknown[] => branch.branches.map((one) => [one.id, one.share, ...labels(one)]);

describe("a tree of continuations", () => {
  it("grows by what is clicked, likeliest first, and keeps what all others share", () => {
    let tree = grown(rootOf("the"), [step(5, " cat", 0.25)]);
    tree = grown(tree, [step(7, " dog", 0.5), step(9, " ran", 0.5)]);
    tree = grown(tree, [step(7, " dog", 0.5), step(8, " sat", 0.25)]);
    expect(tree.branches.map(({ id, share }) => [id, share])).toEqual([
      [7, 0.5],
      [5, 0.25],
      [null, 0.25],
    ]);
    const dog = tree.branches[0]!;
    expect(dog.branches.map(({ id, total }) => [id, total])).toEqual([
      [9, 0.25],
      [8, 0.125],
      [null, 0.125],
    ]);
  });

  it("takes in a tree that was computed, behind the text or behind a branch", () => {
    const other: Branch = {
      ...rootOf("the"),
      branches: [
        { id: 5, label: " cat", share: 0.25, total: 0.25, branches: [] },
        { id: 6, label: " cow", share: 0.125, total: 0.125, branches: [] },
        { id: null, label: "others", share: 0.625, total: 0.625, branches: [] },
      ],
    };
    const clicked = grown(rootOf("the"), [step(5, " cat", 0.25), step(9, " ran", 0.5)]);
    const whole = merged(clicked, [], other);
    expect(labels(whole)).toEqual([
      [5, 0.25, [9, 0.5], [null, 0.5]],
      [6, 0.125],
      [null, 0.625],
    ]);
    const deep = merged(whole, [5, 9], other);
    const ran = deep.branches[0]!.branches[0]!;
    expect(ran.branches.map(({ total }) => total)).toEqual([0.25 * 0.125, 0.125 * 0.125, 0.625 * 0.125]);
    expect(labels(clicked)).toEqual([
      [5, 0.25, [9, 0.5], [null, 0.5]],
      [null, 0.75],
    ]); // it is left as it was
  });

  it("says bits of a probability", () => {
    expect([1, 0.5, 0.125].map(bitsOf)).toEqual([-0, 1, 3]);
  });

  it("lays each depth in a column, each leaf in a row, and joins what does not fork", () => {
    const one = (id: number, branches: Branch[] = []): Branch => ({
      id,
      label: `t${id}`,
      share: 0.5,
      total: 0.5,
      branches,
    });
    const { boxes, lines, height } = laidOut({
      ...rootOf("text"),
      branches: [one(1, [one(2, [one(6, [one(3), one(4)])])]), one(5)],
    });
    const named = Object.fromEntries(boxes.map((box) => [box.label, box]));
    expect(Object.keys(named)).toEqual(["text", "t1t2t6", "t3", "t4", "t5"]);
    expect(named["t1t2t6"]!.path).toEqual([1, 2, 6]);
    expect(named["t1t2t6"]!.share).toBe(0.125);
    expect(named["t3"]!.path).toEqual([1, 2, 6, 3]);
    expect(named["t1t2t6"]!.x).toBe(named["t5"]!.x);
    expect(new Set(["t3", "t4", "t5"].map((name) => named[name]!.y)).size).toBe(3);
    expect(named["t1t2t6"]!.y).toBe((named["t3"]!.y + named["t4"]!.y) / 2);
    expect(lines).toHaveLength(4);
    expect(height).toBe(90);
  });

  it("is drawn with a button for each branch, the way to the chosen one marked", async () => {
    const onpick = vi.fn();
    const root = grown(grown(rootOf("the"), [step(7, " dog", 0.5)]), [step(5, " cat", 0.25)]);
    const result = { picture: "tree", what: "ways on", root } as ResultOf<"tree">;
    render(Tree, { result, chosen: [7], onpick });
    const buttons = within(screen.getByRole("group", { name: "ways on" })).getAllByRole("button");
    expect(buttons.map((one) => one.textContent!.replace(/\s+/g, " ").trim())).toEqual([
      "the",
      "·dog 50 %",
      "·cat 25 %",
    ]);
    expect(buttons.map((one) => one.getAttribute("aria-pressed"))).toEqual(["false", "true", "false"]);
    await fireEvent.click(buttons[2]!);
    expect(onpick).toHaveBeenCalledWith([5]);
  });
});

describe("sliders", () => {
  it("stand where the options are, and mean what they show", () => {
    const [temperature, k, p, low] = sliders({ temperature: 0.7, top_k: 10, top_p: 0.9, min_p: null }, 49152);
    expect([temperature!.at, p!.at, low!.at]).toEqual([0.7, 0.9, 0]);
    expect(k!.value(k!.at)).toBe(10);
    expect([k!.value(k!.max), p!.value(1), low!.value(0)]).toEqual([null, null, null]);
    for (const slider of sliders(NEUTRAL, 30)) expect(slider.value(slider.at)).toBe(NEUTRAL[slider.name]);
    expect(sliders(NEUTRAL, 30)[1]!.value(8)).toBe(20); // no k beyond the vocabulary
  });
});

describe("chances", () => {
  const candidate = (id: number, share: number, left: number, dropped: string | null = null) => ({
    id, token: ` t${id}`, spelled: "20", rank: id, logit: -id, share, left, dropped,
  }); // prettier-ignore
  const result = {
    picture: "chances",
    what: "what may come",
    position: 3,
    masked: false,
    candidates: [candidate(1, 0.5, 0.75), candidate(2, 0.2, 0.25), candidate(3, 0.1, 0, "top_k")],
    others: 0.2,
    others_left: 0,
    came: candidate(40, 0.001, 0, "top_k"),
  } as unknown as Chances;

  it("shows both probabilities, what drops a token, and what came in the text", async () => {
    const onpick = vi.fn();
    render(Picture, { result, subject: { model: "m", text: "x", source: null }, onpick });
    const rows = screen.getAllByRole("row").slice(1);
    const cells = rows.map((row) =>
      [...row.querySelectorAll("td")].map((cell) => cell.textContent!.trim()).filter(Boolean),
    );
    expect(cells).toEqual([
      ["50 %", "75 %", "−1.00"],
      ["20 %", "25 %", "−2.00"],
      ["10 %", "top-k", "−3.00"],
      ["0.10 %", "top-k", "−40.00"],
      ["20 %", "0.00 %"],
    ]);
    expect(rows[3]!.textContent).toContain("rank 40");
    const widths = [...rows[1]!.querySelectorAll<HTMLElement>(".bars span")].map(({ style }) =>
      parseFloat(style.width),
    );
    expect(widths[0]! / widths[1]!).toBeCloseTo(0.2 / 0.25);
    await fireEvent.click(screen.getByRole("button", { name: "Go on with “ t2”" }));
    expect(onpick.mock.calls[0]![0].id).toBe(2);
  });
});
