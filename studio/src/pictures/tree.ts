// Where the branches of a tree stand: each depth a column, each leaf a row, what does not fork in one box.
import type { Branch } from "../lib/api";

export const ROW = 30;
const [LETTER, ROOM, WIDEST, APART] = [8, 64, 230, 46]; // pixels

const RUN = 3; // tokens from which on what does not fork is written in one box

export type Box = {
  branch: Branch;
  path: number[];
  label: string;
  /** Probability of all that stands in it, after the box before. */
  share: number;
  x: number;
  y: number;
  width: number;
};
export type Line = { from: Box; to: Box };

/** Letters that a text is wide; Chinese, Japanese and Korean ones are twice as wide. */
const wide = (text: string) => [...text].reduce((sum, c) => sum + (c >= "\u1100" ? 2 : 1), 0);

/** The branches from one on as long as nothing else is known beside them. */
function run(from: Branch): Branch[] {
  const found = [from];
  for (;;) {
    const named = found.at(-1)!.branches.filter(({ id }) => id !== null);
    if (named.length !== 1) return found;
    found.push(named[0]!);
  }
}

export function laidOut(root: Branch): { boxes: Box[]; lines: Line[]; width: number; height: number } {
  const boxes: Box[] = [];
  const lines: Line[] = [];
  const columns: number[] = []; // the widest box of each
  let rows = 0;
  const place = (from: Branch, before: number[], depth: number): Box => {
    const joined = depth && from.id !== null ? run(from) : [from];
    const own = joined.length >= RUN ? joined : [from];
    const branch = own.at(-1)!;
    const path = [...before, ...own.flatMap(({ id }) => (id === null ? [] : [id]))];
    const label = own.map((one) => one.label).join("");
    const share = own.reduce((product, one) => product * one.share, 1);
    const box: Box = {
      branch,
      path,
      label,
      share,
      x: depth,
      y: 0,
      width: Math.min(WIDEST, LETTER * wide(label) + ROOM),
    };
    boxes.push(box);
    columns[depth] = Math.max(columns[depth] ?? 0, box.width);
    const below = branch.branches.map((next) => place(next, path, depth + 1));
    box.y = below.length ? (below[0]!.y + below.at(-1)!.y) / 2 : ROW * rows++;
    lines.push(...below.map((to) => ({ from: box, to })));
    return box;
  };
  place(root, [], 0);
  const starts = columns.map((_, depth) => columns.slice(0, depth).reduce((sum, size) => sum + size + APART, 0));
  for (const box of boxes) box.x = starts[box.x]!;
  return { boxes, lines, width: starts.at(-1)! + columns.at(-1)!, height: ROW * rows };
}
