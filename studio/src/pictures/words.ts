import type { Words } from "../lib/words";

export const words = {
  ledgerMap: {
    en: "Heads and MLPs by layer; choose one to see it below.",
    zh: "各层的注意力头与 MLP；选择一项在下方查看。",
  },
  layer: { en: "layer {n}", zh: "第 {n} 层" },
  head: { en: "head", zh: "头" },
  noNodes: { en: "There is nothing in this graph.", zh: "图中没有内容。" },
  raises: { en: "adds, up to {most}", zh: "增加，最大 {most}" },
  lowers: { en: "takes away", zh: "减少" },
  reads: { en: "into a head: query left, key middle, value right", zh: "进入注意力头：左为查询，中为键，右为值" },
  counts: { en: "{nodes} nodes, {edges} edges", zh: "{nodes} 个节点，{edges} 条边" },
} satisfies Words;
