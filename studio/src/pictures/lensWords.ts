import type { Words } from "../lib/words";

export const lensWords = {
  colour: { en: "Colour", zh: "颜色" },
  probability: { en: "probability", zh: "概率" },
  entropy: { en: "entropy", zh: "熵" },
  rank: { en: "rank", zh: "排名" },
  show: { en: "Show", zh: "显示" },
  wordsShown: { en: "tokens", zh: "词元" },
  coloursShown: { en: "colours alone", zh: "仅颜色" },
  embedding: { en: "embedding", zh: "嵌入" },
  layer: { en: "layer {n}", zh: "第 {n} 层" },
  after: { en: "after", zh: "在此之后" },
  bits: { en: "bits", zh: "比特" },
  rankOf: { en: "rank of “{token}”", zh: "“{token}”的排名" },
  probabilityUnit: { en: "probability of the cell's token", zh: "单元格词元的概率" },
  entropyUnit: { en: "entropy of the prediction, in bits", zh: "预测的熵（比特）" },
  rankUnit: { en: "rank of the chosen token (1: the likeliest)", zh: "所选词元的排名（1 为最可能）" },
  marked: { en: "underlined: the token that did come next", zh: "下划线：实际出现的下一个词元" },
  markedAsked: { en: "underlined: “{token}”", zh: "下划线：“{token}”" },
  label: {
    en: "Lens table, {rows} rows by {columns} tokens. Arrow keys move, Enter chooses.",
    zh: "透镜表，{rows} 行 × {columns} 个词元。方向键移动，回车选择。",
  },
} satisfies Words;
