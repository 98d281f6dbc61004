// Where the nodes of a graph stand: rows are depths, from below to above; columns are positions in the text, where the
// nodes' names say them (“layers.2.feature.31@4”), and else the nodes of a row stand side by side.

export type GraphNode = { name: string; label: string; value: number; depth: number };
/** `reads`: what the edge feeds in a head, "q", "k" or "v". */
export type GraphEdge = { source: string; target: string; weight: number; reads?: string };
export type Kind = "embed" | "feature" | "neuron" | "error" | "bias" | "logit" | "head" | "mlp" | "group" | "other";
export type Placed = { node: GraphNode; kind: Kind; x: number; y: number; short: string; row: number };
export type Laid = {
  nodes: Placed[];
  width: number;
  height: number;
  rows: { depth: number; y: number; name: string }[];
  columns: { position: number; x: number; name: string }[];
};
export type Group = { name: string; members: string[] };

export const positionOf = (name: string): number | null => {
  const found = /@(\d+)$/.exec(name);
  return found ? Number(found[1]) : null;
};

export function kindOf(name: string): Kind {
  if (/^embed(@|$)/.test(name)) return "embed";
  if (/^logits?(\.|$)/.test(name)) return "logit";
  if (name === "biases") return "bias";
  if (name.startsWith("group ")) return "group";
  return (["feature", "neuron", "error", "head", "mlp"] as const).find((kind) => name.includes(`.${kind}`)) ?? "other";
}

/** What stands beside a node. */
export function shortOf({ name, label }: GraphNode): string {
  const layer = /layers\.(\d+)\./.exec(name)?.[1];
  const number = /\.(?:feature|neuron|head)\.(\d+)/.exec(name)?.[1];
  switch (kindOf(name)) {
    case "feature":
    case "neuron":
      return number!;
    case "head":
      return `${layer}.${number}`;
    case "mlp":
      return `MLP ${layer}`;
    case "error":
      return "";
    default:
      return label;
  }
}

/** Groups as one node each, with what leads in and out summed. */
export function grouped(
  nodes: GraphNode[],
  edges: GraphEdge[],
  groups: Group[],
): { nodes: GraphNode[]; edges: GraphEdge[] } {
  const home = new Map(groups.flatMap(({ name, members }) => members.map((member) => [member, name] as const)));
  if (!home.size) return { nodes, edges };
  const made: GraphNode[] = nodes.filter(({ name }) => !home.has(name));
  for (const { name, members } of groups) {
    const inside = nodes.filter((node) => members.includes(node.name));
    if (!inside.length) continue;
    const positions = inside.map((node) => positionOf(node.name)).filter((at) => at !== null);
    const at = positions.length ? `@${positions.sort((a, b) => a - b)[Math.floor(positions.length / 2)]}` : "";
    made.push({
      name: name + at,
      label: name,
      value: inside.reduce((sum, { value }) => sum + value, 0),
      depth: Math.round(inside.reduce((sum, { depth }) => sum + depth, 0) / inside.length),
    });
    for (const member of members) home.set(member, name + at);
  }
  const sums = new Map<string, GraphEdge>();
  for (const { source, target, weight, reads } of edges) {
    const [from, to] = [home.get(source) ?? source, home.get(target) ?? target];
    if (from === to) continue;
    const key = `${from}\0${to}\0${reads ?? ""}`;
    const sum = sums.get(key);
    if (sum) sum.weight += weight;
    else sums.set(key, { source: from, target: to, weight, reads });
  }
  return { nodes: made.sort((a, b) => a.depth - b.depth), edges: [...sums.values()] };
}

const [STEP, LINE, PER_LINE] = [46, 38, 5];
const edge = { left: 58, right: 24, top: 30, bottom: 54 };

/** Positions in pixels. Nodes of one place stand in lines of a few, the largest first. */
export function laid(nodes: GraphNode[], tokens: string[] = [], wide = 900): Laid {
  const depths = [...new Set(nodes.map(({ depth }) => depth))].sort((a, b) => a - b);
  const known = nodes.map(({ name }) => positionOf(name));
  const positions = [...new Set(known.filter((at) => at !== null))].sort((a, b) => a - b);
  const byText = positions.length > 0;
  // a node without a position stands in the last column, where the answer is read
  const columnOf = (i: number) => (byText ? (known[i] ?? positions.at(-1)!) : 0);
  const places = new Map<string, number[]>();
  nodes.forEach(({ depth }, i) => {
    const key = `${depth}\0${columnOf(i)}`;
    places.set(key, [...(places.get(key) ?? []), i]);
  });
  const perLine = byText ? PER_LINE : Math.max(1, Math.floor((wide - edge.left - edge.right) / 74));
  const step = byText ? STEP : 74;
  const widths = new Map<number, number>();
  const heights = new Map<number, number>();
  for (const [key, members] of places) {
    const [depth, column] = key.split("\0").map(Number) as [number, number];
    widths.set(column, Math.max(widths.get(column) ?? 1, Math.min(members.length, perLine)));
    heights.set(depth, Math.max(heights.get(depth) ?? 1, Math.ceil(members.length / perLine)));
  }
  const least = byText ? [...widths.values()].reduce((sum, count) => sum + count * STEP + 16, 0) : 0;
  const spare = Math.max(0, wide - edge.left - edge.right - least) / Math.max(1, widths.size);
  const starts = new Map<number, number>();
  let x = edge.left;
  for (const column of byText ? positions : [0]) {
    starts.set(column, x);
    x += byText ? widths.get(column)! * STEP + 16 + spare : 0;
  }
  const width = byText ? Math.max(wide, x + edge.right) : wide;
  const rows: Laid["rows"] = [];
  let y = edge.top;
  for (const depth of [...depths].reverse()) {
    const high = heights.get(depth)! * LINE;
    const layer = nodes.find((node) => node.depth === depth && /^layers\.\d+/.test(node.name))?.name.split(".")[1];
    rows.push({ depth, y: y + high / 2, name: layer === undefined ? "" : `L${layer}` });
    y += high + 26;
  }
  const centre = new Map(rows.map(({ depth, y }) => [depth, y]));
  const made: Placed[] = [];
  for (const [key, members] of places) {
    const [depth, column] = key.split("\0").map(Number) as [number, number];
    const sorted = [...members].sort((a, b) => Math.abs(nodes[b]!.value) - Math.abs(nodes[a]!.value));
    const lines = Math.ceil(sorted.length / perLine);
    const room = byText ? widths.get(column)! * STEP + spare : wide - edge.left - edge.right;
    sorted.forEach((i, k) => {
      const line = Math.floor(k / perLine);
      const count = Math.min(perLine, sorted.length - line * perLine);
      made.push({
        node: nodes[i]!,
        kind: kindOf(nodes[i]!.name),
        short: shortOf(nodes[i]!),
        row: depths.indexOf(depth),
        x: starts.get(column)! + room / 2 + ((k % perLine) - (count - 1) / 2) * step,
        y: centre.get(depth)! + (line - (lines - 1) / 2) * LINE,
      });
    });
  }
  const columns = byText
    ? positions.map((position) => ({
        position,
        x: starts.get(position)! + (widths.get(position)! * STEP + spare) / 2,
        name: tokens[position] ?? String(position),
      }))
    : [];
  return { nodes: made, width, height: y - 26 + edge.bottom, rows: rows.reverse(), columns };
}
