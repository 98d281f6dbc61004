// What the ledger says, and how terms are called in both languages.
import { view } from "../lib/state.svelte";
import type { Words } from "../lib/words";
import type { Term } from "../lib/ledger.svelte";

export const ledgerWords = {
  title: { en: "Ledger", zh: "账本" },
  about: {
    en: "One number as the sum of what each part wrote. A term with a ▸ opens into what it is made of, down to the tokens that were read.",
    zh: "一个数字等于各部分写入之和。带 ▸ 的项可继续展开，直到读入的词元。",
  },
  sum: { en: "sum of the terms", zh: "各项之和" },
  own: { en: "the model's own number", zh: "模型自身的数值" },
  error: { en: "rounding error", zh: "舍入误差" },
  more: { en: "{n} more, together", zh: "其余 {n} 项合计" },
  largest: { en: "largest first", zh: "按大小" },
  order: { en: "in the order of computation", zh: "按计算顺序" },
  find: { en: "Find a term", zh: "查找项" },
  found: { en: "{n} of {of} terms", zh: "{of} 项中的 {n} 项" },
  follow: { en: "Follow the largest", zh: "沿最大项追踪" },
  followAbout: {
    en: "Open the largest term that leads further, level by level, down to a token of the input (Ledger.trace). One path of very many.",
    zh: "逐层展开通向更深处的最大项，直到输入词元（Ledger.trace）。这只是众多路径之一。",
  },
  copyPath: { en: "Copy this path as code", zh: "将此路径复制为代码" },
  trail: { en: "The way to the level opened last", zh: "到最后展开层级的路径" },
  token: { en: "Why", zh: "为什么是" },
  minus: { en: "rather than", zh: "而不是" },
  likeliest: { en: "the likeliest", zh: "最可能的" },
  nothing: { en: "(no other)", zh: "（不比较）" },
  position: { en: "position", zh: "位置" },
  way: { en: "What is not linear", zh: "非线性部分" },
  frozen: { en: "held as it was: every term opens", zh: "保持原值：每项都可展开" },
  shapley: { en: "Shapley values, sampled", zh: "Shapley 值（采样）" },
  integrated: { en: "integrated gradients", zh: "积分梯度" },
  leaf: {
    en: "Attributed through what is not linear: these terms do not open.",
    zh: "已穿过非线性部分归因：这些项不可展开。",
  },
  ask: { en: "Open it", zh: "打开" },
  keys: {
    en: "↑ ↓ move   → opens   ← closes   F follows the largest   / finds   Esc closes the ledger",
    zh: "↑ ↓ 移动   → 展开   ← 收起   F 沿最大项追踪   / 查找   Esc 关闭账本",
  },
  edited: { en: "edited", zh: "已修改" },
} satisfies Words;

const CHINESE: Record<string, string> = {
  layer: "层",
  head: "头",
  "cross head": "交叉头",
  mlp: "MLP",
  neuron: "神经元",
  unit: "单元",
  cell: "细胞单元",
  embed: "嵌入",
  position: "位置",
  type: "类型",
  bias: "偏置",
  expert: "专家",
  attn: "注意力",
  logits: "logits",
  score: "分数",
  entropy: "熵",
  key: "键",
  token: "词元",
  back: "反向",
  encoder: "编码器",
  half: "一半",
  distance: "距离",
  nothing: "空集",
};

/** A term's name to be read, and the token or other label beside it. */
export function called({ name, label }: Pick<Term, "name" | "label">): { said: string; label: string } {
  const edited = name.endsWith(".edit");
  let said = name
    .replace(/\.edit$/, "")
    .replace(/\blayers\./, "layer.")
    .replace("cross_head", "cross head")
    .replace(/^(source|step|key|token)\.(?=\d)/, "")
    .replace(/_/g, " ")
    .replace(/\./g, " ");
  if (view.language === "zh") said = said.replace(/cross head|[a-z]+/g, (word) => CHINESE[word] ?? word);
  return { said, label: edited ? `(${ledgerWords.edited[view.language]})` : label };
}
