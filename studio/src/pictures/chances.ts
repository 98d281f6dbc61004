import type { Words } from "../lib/words";

export const chances = {
  others: { en: "others", zh: "其余" },
  allOthers: { en: "all others", zh: "其余全部" },
  ofParent: { en: "after the branch before it", zh: "在前一分支之后" },
  fromText: { en: "from the text on", zh: "从文本起" },
  treeLegend: {
    en: "In each box the probability after what is left of it, of several tokens that of all together. The width of a line is the probability from the text on.",
    zh: "方框内为接在左侧之后的概率，多个词元时为合计概率；连线宽度为从文本起的概率。",
  },
  token: { en: "Token", zh: "词元" },
  bars: { en: "Probability", zh: "概率" },
  raw: { en: "model", zh: "模型" },
  left: { en: "after sampling", zh: "采样后" },
  logit: { en: "Logit", zh: "logit" },
  came: { en: "in the text", zh: "文中的词元" },
  cameBelow: { en: "In the text: rank {n}", zh: "文中的词元：第 {n} 位" },
  fork: { en: "Go on with “{token}”", zh: "用“{token}”继续" },
  put: { en: "Put “{token}” here", zh: "在此填入“{token}”" },
  openLogit: { en: "Ledger of the logit", zh: "打开 logit 的账本" },
  openShare: { en: "Ledger of the log-probability", zh: "打开对数概率的账本" },
  dropped: { en: "dropped by {step}", zh: "被 {step} 去除" },
  rank: { en: "rank", zh: "排名" },
  bytes: { en: "bytes", zh: "字节" },
} satisfies Words;

/** What the steps of drawing are called. */
export const steps: Record<string, string> = {
  temperature: "temperature 0",
  top_k: "top-k",
  top_p: "top-p",
  min_p: "min-p",
};

/** A token with its outer spaces visible, where there is plain text alone. */
export const visible = (token: string) => token.replace(/^ +| +$/g, (spaces) => "·".repeat(spaces.length));
