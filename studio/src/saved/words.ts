// What saved pages say beside their pictures.
import type { Words } from "../lib/words";

export const words = {
  look: { en: "a look inside", zh: "模型内部一览" },
  code: { en: "the Python that made this", zh: "生成此页的 Python 代码" },
  parameters: { en: "{n} parameters", zh: "{n} 个参数" },
  vocabulary: { en: "vocabulary {n}", zh: "词表 {n}" },
  missing: { en: "What is not here", zh: "此处没有的内容" },
  next: { en: "What comes next", zh: "接下来是什么" },
  answers: { en: "What it answers", zh: "模型的回答" },
  nextAfter: {
    en: "The likeliest tokens after “{token}” (position {n}), and their probabilities.",
    zh: "“{token}”（位置 {n}）之后最可能的词元及其概率。",
  },
  answersAt: {
    en: "The likeliest answers at “{token}” (position {n}), and their probabilities.",
    zh: "“{token}”（位置 {n}）处最可能的回答及其概率。",
  },
  answersOfText: {
    en: "The likeliest answers for the text, and their probabilities.",
    zh: "对整段文本最可能的回答及其概率。",
  },

  "part.encoder attention": { en: "Encoder attention", zh: "编码器注意力" },
  "part.cross-attention": { en: "Cross-attention", zh: "交叉注意力" },
  "title.attention": { en: "Attention", zh: "注意力" },
  "title.lens": { en: "Lens", zh: "透镜" },
  "title.ledger": { en: "Ledger", zh: "账本" },
  "title.confusion": { en: "Confusion", zh: "混淆矩阵" },
  "title.reliability": { en: "Does it know how sure it is?", zh: "置信度可靠吗？" },
  "title.misses": { en: "The worst errors", zh: "最严重的错误" },
  "about.scores": { en: "Under each token its number.", zh: "每个词元下方是它的数值。" },
  mean: { en: "{x} {unit} on average", zh: "平均 {x} {unit}" },
  probability: { en: "probability", zh: "概率" },
  entropy: { en: "{x} bits of surprise are to be expected.", zh: "期望惊异度为 {x} 比特。" },
  step: { en: "{name} {value} leaves {kept} tokens", zh: "{name} {value} 之后剩 {kept} 个词元" },
  entropyLeft: { en: "after that {x} bits.", zh: "之后为 {x} 比特。" },
  "about.attention": {
    en: "How much each token (row) takes from each other one (column). The rows sum to 1. Choose a head on the small pictures.",
    zh: "每个词元（行）从其他词元（列）获取多少。每行之和为 1。可在小图中选择注意力头。",
  },
  "about.lens": {
    en: "What each layer would say next, if the model ended there: its likeliest token after each token of the text. The last row is the model's own output.",
    zh: "假如模型在该层结束，各层会预测什么：文本每个词元之后最可能的词元。最后一行是模型自身的输出。",
  },
  "about.ledger": {
    en: "One number as the sum of what each part of the model wrote. A term with a ▸ opens: a head into the tokens it read, an MLP into its neurons, a recurrent unit into the steps that wrote it.",
    zh: "一个数等于模型各部分写入量之和。带 ▸ 的项可以展开：注意力头展开为它读取的词元，MLP 展开为神经元，循环单元展开为写入它的各步。",
  },
  "about.graph": {
    en: "From below to above; the wider an edge, the larger its weight.",
    zh: "自下而上；边越粗，权重越大。",
  },
  "about.tree": {
    en: "Each branch with its share of the one before it, and of the whole.",
    zh: "每个分支占上一级及全体的比例。",
  },
  "about.confusion": {
    en: "Rows are the true labels, columns what was said; blue is right, orange wrong, darker the larger its share of the row.",
    zh: "行为真实标签，列为模型的回答；蓝色为正确，橙色为错误，颜色越深占该行的比例越大。",
  },
  "about.reliability": {
    en: "Each dot is a tenth of the scale, the larger the more fall into it. On the dashed line it is right as often as it is sure.",
    zh: "每个点代表置信度的十分之一区间，点越大样本越多。虚线上正确率与置信度一致。",
  },

  baseline: { en: "baseline", zh: "基线" },
  empty: { en: "(empty)", zh: "（空）" },
  value: { en: "value", zh: "数值" },
  interval: { en: "95 % interval", zh: "95 % 区间" },
  to: { en: "{low} to {high}", zh: "{low} 至 {high}" },
  examples: { en: "examples", zh: "样本数" },
  sure: { en: "how sure", zh: "置信度" },
  right: { en: "how often right", zh: "正确率" },
  diagonal: { en: "dashed: as sure as right", zh: "虚线：置信度等于正确率" },
  wrong: {
    en: "{wrong} of {examples} answers are not wholly right; the {n} surest of them first.",
    zh: "{examples} 个回答中有 {wrong} 个不完全正确；以下按置信度列出前 {n} 个。",
  },
  explained: {
    en: "Under the words of the first: how much each of them speaks for the answer (orange) or against it (blue).",
    zh: "前几条的词语下方：每个词对该回答的支持（橙）或反对（蓝）程度。",
  },
  isNot: { en: "is not", zh: "应为" },
  partly: { en: "right by {share}", zh: "部分正确 {share}" },
} satisfies Words;
