// The pages in the order of the navigation. A page is a folder: Page.svelte (takes `subject` and `about`) and words.ts.
import type { Component } from "svelte";
import type { About, Subject } from "../lib/api";
import { say, type Words } from "../lib/words";
import { words as learn } from "./learn/words";
import { words as lens } from "./lens/words";
import { words as patch } from "./patch/words";
import { words as attribution } from "./attribution/words";
import { words as features } from "./features/words";
import { words as attention } from "./attention/words";
import { words as map } from "./map/words";
import { words as tokens } from "./tokens/words";
import { words as training } from "./training/words";
import { words as work } from "./work/words";
import { frame } from "../parts/words";

export type PageProps = { subject: Subject; about: About | undefined };
export type PageEntry = {
  id: string;
  words: Words; // with "title" and "about"
  load: () => Promise<{ default: Component<PageProps> }>;
  /** What a model must have (`About.has`) for the page to show something of it. */
  needs?: string[];
  /** Most of it is about a text. */
  reads?: boolean;
  /** Shows something before any model is open. */
  alone?: boolean;
};

export const PAGES: PageEntry[] = [
  { id: "tokens", words: tokens, load: () => import("./tokens/Page.svelte") },
  { id: "map", words: map, load: () => import("./map/Page.svelte") },
  {
    id: "attention",
    words: attention,
    reads: true,
    needs: ["attention"],
    load: () => import("./attention/Page.svelte"),
  },
  { id: "lens", words: lens, reads: true, needs: ["stream", "words"], load: () => import("./lens/Page.svelte") },
  { id: "patch", words: patch, reads: true, needs: ["words"], load: () => import("./patch/Page.svelte") },
  { id: "attribution", words: attribution, reads: true, load: () => import("./attribution/Page.svelte") },
  { id: "features", words: features, reads: true, load: () => import("./features/Page.svelte") },
  { id: "training", words: training, alone: true, load: () => import("./training/Page.svelte") },
  { id: "learn", words: learn, load: () => import("./learn/Page.svelte") },
  { id: "work", words: work, load: () => import("./work/Page.svelte") },
];

/** Why a page shows nothing of a model, and which pages do; null: it shows it. */
export function whyNot(page: PageEntry, about: About): { why: string; instead: PageEntry[] } | null {
  const missing = (page.needs ?? []).find((need) => !about.has.includes(need));
  if (!missing) return null;
  const instead = PAGES.filter(({ needs }) => (needs ?? []).every((need) => about.has.includes(need)));
  return { why: say(frame, `no.${missing}` as keyof typeof frame, { kind: about.kind }), instead };
}
