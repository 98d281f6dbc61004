import type { Words } from "../../lib/words";

export const words = {
  title: { en: "Lens", zh: "透镜" },
  about: {
    en: "What each layer would say next, if the model ended there: its residual stream read through the model's own last norm and output matrix. The last row is the model's own output.",
    zh: "如果模型在该层结束，它会预测什么：用模型自己的最终归一化和输出矩阵读取各层的残差流。最后一行就是模型自身的输出。",
  },
  kind: { en: "Lens", zh: "透镜" },
  logit: { en: "logit", zh: "logit" },
  tuned: { en: "tuned", zh: "调优" },
  jacobian: { en: "Jacobian", zh: "雅可比" },
  logitWhy: { en: "The stream as it is (nostalgebraist 2020).", zh: "原样读取残差流（nostalgebraist 2020）。" },
  tunedWhy: {
    en: "An affine map for each layer, trained to say what the last layer says (Belrose et al. 2023).",
    zh: "每层一个仿射映射，训练使其与最后一层的预测一致（Belrose 等 2023）。",
  },
  jacobianWhy: {
    en: "The mean derivative of the last stream with respect to each layer's, as a map (Gurnee et al. 2026).",
    zh: "最后一层残差流对各层残差流的平均导数，作为映射（Gurnee 等 2026）。",
  },
  rankFor: { en: "Rank of", zh: "排名对象" },
  next: { en: "the token that came next", zh: "实际的下一个词元" },
  pinned: { en: "“{token}”", zh: "“{token}”" },
  pickHint: {
    en: "Choose a cell: what the layer says there, and a token's way through the layers, stand below.",
    zh: "选择一个单元格：下方显示该层的预测，以及词元在各层中的变化。",
  },
  cell: { en: "{layer}, after “{token}” (position {n})", zh: "{layer}，“{token}”之后（位置 {n}）" },
  token: { en: "token", zh: "词元" },
  probability: { en: "probability", zh: "概率" },
  logitColumn: { en: "logit", zh: "logit" },
  pin: { en: "pin", zh: "固定" },
  pinOf: { en: "Follow “{token}” through the layers", zh: "跟踪“{token}”在各层的变化" },
  ledgerOf: {
    en: "Open the output's logit of “{token}” here into its ledger",
    zh: "将此处输出层“{token}”的 logit 展开为账本",
  },
  outputLogit: { en: "output logit → ledger", zh: "输出 logit → 账本" },
  layers: { en: "Pinned tokens, layer by layer", zh: "固定词元逐层变化" },
  layersAbout: {
    en: "Their rank among all tokens (1 at the top, logarithmic) and their probability, after “{token}” (position {n}).",
    zh: "它们在“{token}”（位置 {n}）之后于全部词元中的排名（顶部为 1，对数刻度）与概率。",
  },
  rank: { en: "rank", zh: "排名" },
  place: { en: "layer", zh: "层" },
  embedding: { en: "embedding", zh: "嵌入" },
  fitTitle: { en: "This lens has to be fitted to the model first", zh: "此透镜需要先拟合到模型" },
  how: { en: "How, and with which texts", zh: "方法与所用文本" },
  fitTuned: {
    en: "A tuned lens is trained on some texts so that each layer's map says what the last layer says; the model stays as it is. More and longer texts of the kind you look at make a better lens: a few sentences only show how it works.",
    zh: "调优透镜在一些文本上训练，使每层的映射与最后一层的预测一致；模型本身不变。与所看文本同类、更多更长的文本会得到更好的透镜：几句话只能演示原理。",
  },
  fitJacobian: {
    en: "A Jacobian lens averages derivatives over some texts (the paper takes a hundred or more of 128 tokens); random directions stand in for all rows, with noise that falls with the root of their number.",
    zh: "雅可比透镜对一些文本上的导数取平均（论文使用上百段 128 词元的文本）；用随机方向代替全部行，噪声随其数量的平方根下降。",
  },
  fitPython: { en: "In Python:", zh: "在 Python 中：" },
  texts: { en: "Texts, one a line (one in five is kept to try the lens on)", zh: "文本，每行一段（五分之一留作检验）" },
  steps: { en: "Steps", zh: "步数" },
  probes: { en: "Random directions for each text", zh: "每段文本的随机方向数" },
  fit: { en: "Fit it now", zh: "现在拟合" },
  refit: { en: "Fit it anew", zh: "重新拟合" },
  fitted: {
    en: "Fitted. How far each layer's prediction is from the output, on {n} tokens it was not fitted to:",
    zh: "已拟合。在未参与拟合的 {n} 个词元上，各层预测与输出的距离：",
  },
  difference: { en: "Difference from the compared subject", zh: "与比较对象的差异" },
  differenceAbout: {
    en: "Where the two runs part: dark cells say something else (Jensen–Shannon divergence, 0 the same, 1 bit wholly apart). A cell names what A says → what B says where their likeliest tokens differ.",
    zh: "两次运行在何处分开：颜色越深预测越不同（Jensen–Shannon 散度，0 相同，1 比特完全不同）。最可能词元不同的单元格写出 A → B。",
  },
  differenceShow: { en: "Show where A and B part", zh: "显示 A 与 B 的分歧" },
  parted: { en: "Likeliest tokens differ in {share} of the cells.", zh: "{share} 的单元格最可能词元不同。" },
  aligned: {
    en: "The texts are not equally long: columns are their common beginning and end, {n} of {all} tokens.",
    zh: "两段文本长度不同：列为共同的开头与结尾，{n} / {all} 个词元。",
  },
  divergence: { en: "Jensen–Shannon divergence, in bits", zh: "Jensen–Shannon 散度（比特）" },
  differenceLabel: {
    en: "Difference table, {rows} rows by {columns} tokens. Arrow keys move.",
    zh: "差异表，{rows} 行 × {columns} 个词元。方向键移动。",
  },
} satisfies Words;

/** Ordinary sentences, to begin with. */
export const SENTENCES = [
  "The capital of France is Paris, and the capital of Italy is Rome.",
  "It was a dark night in the town, and nobody was on the street.",
  "She opened the door and saw a small dog that looked at her.",
  "A computer is a machine that follows the instructions it is given.",
  "In spring the trees are green, and the birds sing in the morning.",
  "He bought bread, cheese and a bottle of milk at the market.",
  "When the train came, they said goodbye and waved to each other.",
  "Two and two are four, and four and four are eight.",
  "The teacher asked a question, but none of the children knew the answer.",
  "Water boils at a hundred degrees and freezes at zero.",
];
