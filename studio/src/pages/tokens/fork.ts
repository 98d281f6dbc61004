// A tree of continuations that grows with what is clicked, written and computed: a branch for each way on.
import type { Branch, Candidate, Wrote } from "../../lib/api";

/** A token behind the text. */
export type Step = Pick<Wrote, "id" | "token" | "spelled" | "share"> & { likely?: Wrote["likely"] };

export const stepOf = ({ id, token, spelled, share }: Candidate | Wrote): Step => ({ id, token, spelled, share });

export const bitsOf = (share: number): number => -Math.log2(share);

export const rootOf = (label: string): Branch => ({ label, share: 1, total: 1, branches: [], id: null });

/** The same tree with these tokens behind each other, from its root on. */
export function grown(tree: Branch, steps: readonly Step[]): Branch {
  const [first, ...rest] = steps;
  if (!first) return tree;
  const known = tree.branches.find(({ id }) => id === first.id);
  const { id, token: label, share } = first;
  const branch = grown(known ?? { id, label, share, total: tree.total * share, branches: [] }, rest);
  return { ...tree, branches: placed(tree, branch) };
}

/** The same tree with all branches of another one behind some tokens. */
export function merged(tree: Branch, path: readonly number[], other: Branch): Branch {
  const [first, ...rest] = path;
  if (first !== undefined)
    return {
      ...tree,
      branches: tree.branches.map((branch) => (branch.id === first ? merged(branch, rest, other) : branch)),
    };
  let made = tree;
  for (const branch of other.branches) {
    if (branch.id === null) continue;
    const known = made.branches.find(({ id }) => id === branch.id);
    const own = known ?? { ...branch, total: tree.total * branch.share, branches: [] };
    made = { ...made, branches: placed(made, merged(own, [], branch)) };
  }
  return made;
}

/** Branches with one more, or another in its place: likeliest first, and last what all others share. */
function placed(tree: Branch, branch: Branch): Branch[] {
  const named = tree.branches.filter(({ id }) => id !== null && id !== branch.id);
  named.push(branch);
  named.sort((a, b) => b.share - a.share);
  const rest = Math.max(0, 1 - named.reduce((sum, { share }) => sum + share, 0));
  const others = { label: "", share: rest, total: tree.total * rest, branches: [], id: null };
  return rest > 1e-9 ? [...named, others] : named;
}
