// The rows of the flow's picture, out of the stages that Python computed: what joins on the left and right, the sum so far.
import type { components } from "../../lib/schema";
import type { Unpacked } from "../../lib/wire";

type Schemas = components["schemas"];
export type FlowResult = Unpacked<Schemas["FlowResult"]>;
export type Stage = FlowResult["stages"][number];
export type Part = Stage["parts"][number];

/** Something that joins the stream. `path` opens it in the ledger; null where several terms are one ribbon. */
export type Ribbon = { stage: Stage; part: Part | null; value: number; path: string[] | null };
export type Row = {
  key: string;
  left: Ribbon | null;
  right: Ribbon | null;
  /** Of the stream's edges before this row, in the unit of the number: it reaches from −left to right. */
  from: { left: number; right: number };
  after: number;
  /** Steps that stand in this row together. */
  merged: number;
};

const TALL = 72; // rows of steps that are shown one by one

/** Where a term opens; of one that does not, the level that it stands in. */
const pathTo = ({ path, opens }: Part): string[] => (opens ? path : path.slice(0, -1));

const ribbon = (stage: Stage, part: Part | null = null): Ribbon => {
  const only = part ?? (stage.parts.length === 1 ? stage.parts[0]! : null);
  return { stage, part, value: part ? part.value : stage.value, path: only && pathTo(only) };
};

/** @param opened names of the stages that are shown part by part */
export function rowsOf(stages: Stage[], opened: ReadonlySet<string>): Row[] {
  const rows: Row[] = [];
  const from = { left: 0, right: 0 };
  const put = (key: string, left: Ribbon | null, right: Ribbon | null, merged = 0) => {
    const row = { key, left, right, from: { ...from }, after: 0, merged };
    from.left += left?.value ?? 0;
    from.right += right?.value ?? 0;
    rows.push({ ...row, after: from.left + from.right });
  };
  for (const { stage, merged } of merge(stages)) {
    if (stage.kind === "mlp") {
      const last = rows.at(-1);
      const beside = last && !last.right && last.left?.stage.layer === stage.layer && !opened.has(stage.name);
      if (beside) {
        last.right = ribbon(stage);
        from.right += stage.value;
        last.after += stage.value;
      } else if (opened.has(stage.name)) {
        for (const part of stage.parts) put(`${stage.name}/${part.name}`, null, ribbon(stage, part));
      } else put(stage.name, null, ribbon(stage));
    } else if (opened.has(stage.name)) {
      for (const part of stage.parts) put(`${stage.name}/${part.name}`, ribbon(stage, part), null);
      const others = stage.value - stage.parts.reduce((sum, { value }) => sum + value, 0);
      if (stage.kind === "step" && Math.abs(others) > 1e-9)
        put(`${stage.name}/others`, { stage, part: null, value: others, path: null }, null);
    } else put(stage.name, ribbon(stage), null, merged);
  }
  return rows;
}

/** Of very many steps the largest one by one, and those between them together. */
function merge(stages: Stage[]): { stage: Stage; merged: number }[] {
  if (stages.length <= TALL || stages[0]!.kind !== "step") return stages.map((stage) => ({ stage, merged: 0 }));
  const sizes = stages.map(({ value }) => Math.abs(value)).sort((a, b) => b - a);
  const least = sizes[TALL / 2]!;
  const made: { stage: Stage; merged: number }[] = [];
  for (const stage of stages) {
    const last = made.at(-1);
    if (Math.abs(stage.value) > least || stage.kind !== "step") made.push({ stage, merged: 0 });
    else if (last?.merged) {
      const { value } = last.stage;
      last.stage = { ...last.stage, value: value + stage.value, after: stage.after };
      last.merged += 1;
    } else made.push({ stage: { ...stage, parts: [] }, merged: 1 });
  }
  return made;
}

/** How far the stream and its ribbons reach, and the largest of what joins. */
export function extent(rows: Row[]): { left: number; right: number; most: number } {
  let [left, right, most] = [0, 0, 1e-9];
  for (const { from, left: a, right: b } of rows) {
    const ends = [from.left, from.left + (a?.value ?? 0)];
    left = Math.max(left, ...ends, -from.right);
    right = Math.max(right, from.right, from.right + (b?.value ?? 0), ...ends.map((end) => -end));
    most = Math.max(most, Math.abs(a?.value ?? 0), Math.abs(b?.value ?? 0));
  }
  return { left, right, most };
}

/** The outline of what joins a vertical stream from a side, or leaves it: between two edges, `height` high.
 *
 * @param edge where the stream's edge was, and `to` where it is now
 * @param side where it comes from: 0, or the width of the picture
 * @param y the middle of it at that side
 */
export function joining(edge: number, to: number, side: number, y: number, height: number): string {
  const wide = Math.abs(to - edge);
  const outward = side < edge || (side === edge && side === 0) ? -1 : 1;
  const joins = (to - edge) * outward >= 0; // the stream grows towards that side
  const [top, bottom] = [y - wide / 2, y + wide / 2];
  const [inner, outer] = joins ? [edge, to] : [to, edge];
  if (joins) {
    const big = Math.min(wide + 5, height - top);
    const small = Math.min(5, height - bottom);
    return (
      `M${side} ${top}H${inner + outward * big}Q${inner} ${top} ${inner} ${top + big}V${height}H${outer}` +
      `V${bottom + small}Q${outer} ${bottom} ${outer + outward * small} ${bottom}H${side}Z`
    );
  }
  const big = Math.min(wide + 5, bottom);
  const small = Math.min(5, top);
  return (
    `M${side} ${bottom}H${inner + outward * big}Q${inner} ${bottom} ${inner} ${bottom - big}V0H${outer}` +
    `V${top - small}Q${outer} ${top} ${outer + outward * small} ${top}H${side}Z`
  );
}
