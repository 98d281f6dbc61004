import type { Words } from "../../lib/words";

export const words = {
  every: { en: "Every head", zh: "所有注意力头" },
  atlas: {
    en: "{layers} layers × {heads} heads. The arrow keys choose a head.",
    zh: "{layers} 层 × {heads} 个头。方向键选择注意力头。",
  },
  layer: { en: "layer", zh: "层" },
  head: { en: "head", zh: "头" },
  which: { en: "Layer {layer}, head {head}", zh: "第 {layer} 层，第 {head} 头" },
  rows: {
    en: "Each row is a token that looks (query); each column one that is looked at (key). Choose a row to see its numbers.",
    zh: "每一行是发出查询的词元（query），每一列是被关注的词元（key）。选择一行可查看其数值。",
  },
  lastOf: { en: "The last {n} of {all} tokens.", zh: "全部 {all} 个词元中的最后 {n} 个。" },
  query: { en: "query", zh: "查询" },
  key: { en: "key", zh: "键" },
  token: { en: "token", zh: "词元" },
  weight: { en: "attention weight", zh: "注意力权重" },
  output: { en: "share of what is written", zh: "写入量占比" },
  score: { en: "score before the softmax", zh: "softmax 前的分数" },
  "by.weight": { en: "weights", zh: "权重" },
  "by.output": { en: "weights × values", zh: "权重 × 值" },
  "by.score": { en: "scores (q·k)", zh: "分数（q·k）" },
  drawn: { en: "Drawn as", zh: "画法" },
  "drawn.matrix": { en: "matrix", zh: "矩阵" },
  "drawn.arcs": { en: "arcs", zh: "连线" },
  "drawn.layer": { en: "arcs of all heads", zh: "所有头的连线" },
  arcsAbout: {
    en: "Lines lead from the token that looks (left) to those it looks at most (right); the darker, the more. The chosen token's lines stand out; click another, or use ↑ ↓.",
    zh: "连线从发出查询的词元（左）指向它最关注的词元（右），越深表示权重越大。突出显示所选词元的连线；点击其他词元或用 ↑ ↓ 切换。",
  },
  show: { en: "Show", zh: "显示" },
  unseen: { en: "not seen: it stands behind the query", zh: "不可见：位于查询之后" },
  around: { en: "strongest around here", zh: "附近最大值" },
  "kind.previous": { en: "previous token", zh: "前一词元" },
  "kind.next": { en: "next token", zh: "后一词元" },
  "kind.first": { en: "first token (sink)", zh: "首词元（汇聚）" },
  "kind.last": { en: "last token", zh: "末词元" },
  "kind.itself": { en: "itself", zh: "自身" },
  "kind.duplicate": { en: "same token elsewhere", zh: "别处的相同词元" },
  "kind.induction": { en: "induction", zh: "归纳" },
  "kind.same place": { en: "same place", zh: "相同位置" },
  "kind.others": { en: "others", zh: "其他" },
  badges: {
    en: "A letter marks a head of whose pattern at least 40 % lies where such a head looks, in this text:",
    zh: "字母表示该头在此文本中至少 40 % 的注意力落在该类位置：",
  },
  uniform: { en: "{share} if it looked everywhere alike", zh: "若均匀关注则为 {share}" },
  looks: { en: "Where “{token}” looks", zh: "“{token}” 关注哪里" },
  position: { en: "position {i} of {n}", zh: "位置 {i} / 共 {n}" },
  earlier: { en: "Previous query", zh: "上一个查询" },
  later: { en: "Next query", zh: "下一个查询" },
  more: { en: "show {n} more", zh: "再显示 {n} 项" },
  fewer: { en: "show fewer", zh: "收起" },
  rest: { en: "{n} others together", zh: "其余 {n} 个合计" },
  opens: {
    en: "A weight opens as its logarithm, a score as query · key: click one.",
    zh: "权重按对数展开，分数按 query · key 展开：点击数字查看。",
  },
  pairs: { en: "What makes this score", zh: "该分数由什么构成" },
  pairsOf: {
    en: "The score of “{query}” and “{key}” as pairs: what fed the query (rows) × what fed the key (columns).",
    zh: "“{query}” 与 “{key}” 的分数分解为成对项：query 的来源（行）× key 的来源（列）。",
  },
  pairsOpen: { en: "Open the whole score's ledger", zh: "打开该分数的账本" },
  close: { en: "Close", zh: "关闭" },
} satisfies Words;

/** The letter that marks a kind of head. */
export const LETTERS: Record<string, string> = {
  previous: "P", next: "N", first: "F", last: "L", itself: "S", duplicate: "D", induction: "I", "same place": "=",
}; // prettier-ignore
export const MARKED = 0.4; // share of a pattern from which on a head is marked
