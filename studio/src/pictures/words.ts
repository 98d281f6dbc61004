import type { Words } from "../lib/words";

export const words = {
  noNodes: { en: "There is nothing in this graph.", zh: "图中没有内容。" },
  raises: { en: "adds, up to {most}", zh: "增加,最大 {most}" },
  lowers: { en: "takes away", zh: "减少" },
  reads: { en: "into a head: query left, key middle, value right", zh: "进入注意力头:左为查询,中为键,右为值" },
  counts: { en: "{nodes} nodes, {edges} edges", zh: "{nodes} 个节点,{edges} 条边" },
} satisfies Words;
