// @vitest-environment jsdom
import { expect, test } from "vitest";
import { ago } from "../src/lib/ago";
import { choose, longTexts, Place, read, view, written } from "../src/lib/state.svelte";

const now = 1_000_000_000;

test("times are told in the largest unit that they fill", () => {
  expect(ago(now - 30, "en", now)).toBe("now");
  expect(ago(now - 200, "en", now)).toBe("3 min. ago");
  expect(ago(now - 7300, "en", now)).toBe("2 hr. ago");
  expect(ago(now - 86_400, "zh", now)).toBe("昨天");
  expect(ago(0, "en", now)).toBe("");
});

test.each([
  "?page=lens&model=run&step=20&text=the+cat&layer=2&token=+dog",
  "?page=tokens&model=run&text=a&b.step=10",
  "?page=tokens&model=run&text=a&b.model=gru&b.text=%E7%8C%AB&lang=zh",
  "?page=patch&model=t5&text=die&source=the&b.source=a",
  "?page=learn&model=run&text=a&at.chapter=loss",
])("an address is read and written back: %s", (query) => {
  read(query);
  const sorted = (one: string) => [...new URLSearchParams(one)].sort();
  expect(sorted(written())).toEqual(sorted(query));
});

test("a choice within a page is in the address of that page, and is one of those that there are", () => {
  read("?page=learn&model=run&text=a&at.chapter=loss");
  const chapter = new Place("learn", "chapter", ["tokens", "loss", "step"]);
  expect([chapter.value, chapter.picked]).toEqual(["loss", "loss"]);
  chapter.value = "step";
  expect(new URLSearchParams(written()).get("at.chapter")).toBe("step");
  expect(written("lens")).not.toContain("at.");
  read("?page=learn&model=run&text=a&at.chapter=cooking");
  expect([chapter.value, chapter.picked]).toEqual(["tokens", null]);
  choose("learn", "chapter", null);
  expect(written()).not.toContain("at.");
});

test("what is no number of an address is none", () => {
  read("?model=run&step=-1&layer=NaN&head=1e99&position=2");
  expect(view.side.step).toBeNull();
  expect([view.selected.layer, view.selected.head, view.selected.position]).toEqual([null, null, 2]);
});

test("B is A but for what differs; another model has steps of its own", () => {
  read("?model=run&step=10&text=a");
  expect(view.sideB).toBeNull();
  view.other = { text: "b" };
  expect(view.sideB).toEqual({ model: "run", step: 10, text: "b", source: null });
  view.other = { model: "gru" };
  expect(view.sideB).toEqual({ model: "gru", step: null, text: "a", source: null });
  view.other = { step: 20 };
  expect(view.sideB).toEqual({ model: "run", step: 20, text: "a", source: null });
});

test("a long text stays out of the address, and is found beside it", () => {
  const long = "猫坐在垫子上。".repeat(200);
  read("?model=run&text=a&b.text=b");
  view.side.text = long;
  expect(written().length).toBeLessThan(1000);
  const [query, kept] = [written(), longTexts()];
  expect(kept).toEqual({ text: long });
  read("?model=other");
  read(query, kept);
  expect([view.side.text, view.other?.text]).toEqual([long, "b"]);
});
