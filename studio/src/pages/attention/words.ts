import type { Words } from "../../lib/words";

export const words = {
  title: { en: "Attention", zh: "注意力" },
  about: {
    en: "Where each head looks: every head small, one of them large, and every weight opened down to the tokens it came from. A pattern says where a head looks, not that the answer depends on it: test it.",
    zh: "每个注意力头关注哪里：所有头的缩略图、其中一个的大图，每个权重都可展开到其来源词元。注意力模式只说明关注何处，并不说明答案依赖于它：请加以验证。",
  },
  whose: { en: "Attention of", zh: "注意力类型" },
  "part.decoder": { en: "target at itself", zh: "目标关注自身" },
  "part.encoder": { en: "source at itself", zh: "源文本关注自身" },
  "part.cross": { en: "target at source (cross)", zh: "目标关注源文本（交叉注意力）" },
  views: { en: "Views", zh: "视图" },
  "view.heads": { en: "Heads", zh: "注意力头" },
  "view.rollout": { en: "Rollout", zh: "注意力推演（rollout）" },
  "view.flow": { en: "Flow", zh: "注意力流（flow）" },
  "view.circuits": { en: "Circuits of a head", zh: "头的回路" },
  "view.effects": { en: "What is lost without a head", zh: "去掉某头的损失" },
  rolloutAbout: {
    en: "All layers multiplied: what share of each token (row) was mixed from which token that was read (column), if half of a token stays in each layer and heads are averaged. It knows no values and no MLPs: what could be mixed, not what was used.",
    zh: "将所有层相乘：假设每层保留一半并对各头取平均，每个词元（行）混入了多少来自读入词元（列）的份额。它不考虑值和 MLP：只表示可能混入什么，而非用到了什么。",
  },
  residual: { en: "share that stays in each layer", zh: "每层保留的份额" },
  together: { en: "heads of a layer by", zh: "同层各头取" },
  mean: { en: "mean", zh: "平均" },
  max: { en: "largest", zh: "最大" },
  min: { en: "smallest", zh: "最小" },
  flowAbout: {
    en: "How much fits through all paths at once from each token to “{token}” after the last layer, if weights are the widths of pipes: a maximum flow for each of {n} tokens.",
    zh: "若把权重看作管道宽度，从每个词元到最后一层之后的 “{token}” 一次最多能流过多少：对 {n} 个词元各求一次最大流。",
  },
  flowLong: {
    en: "{n} tokens need {n} maximum flows through {pipes} pipes each, which takes very long: it is offered up to {most} pipes. Rollout answers the same question for a text of this length.",
    zh: "{n} 个词元需要 {n} 次最大流，每次经过 {pipes} 条管道，耗时很长：上限为 {most} 条。对这样长的文本请用 rollout。",
  },
  compute: { en: "Compute", zh: "计算" },
  circuitsAbout: {
    en: "What the matrices of layer {layer}, head {head} do whatever the text says, read from the embeddings straight to the output; shown for the tokens of this text. Deeper down it is a part of the truth, as other layers have written too.",
    zh: "第 {layer} 层第 {head} 头的矩阵本身做什么，与文本无关：从词嵌入直接读到输出；仅显示此文本的词元。较深层还受其他层写入的影响，因此只是部分事实。",
  },
  layer: { en: "layer", zh: "层" },
  head: { en: "head", zh: "头" },
  qk: { en: "QK: which token wants to look at which", zh: "QK：哪个词元想关注哪个" },
  distance: { en: "key stands so many tokens before", zh: "键在查询之前的词元数" },
  ov: { en: "OV: what reading a token adds to each token's logit", zh: "OV：读取某词元会给各词元的 logit 加多少" },
  eigen: {
    en: "Σλ / Σ|λ| = {score}: near 1 it says what it reads, near −1 it argues against it, near 0 neither.",
    zh: "Σλ / Σ|λ| = {score}：接近 1 表示复述所读，接近 −1 表示抑制所读，接近 0 则两者皆非。",
  },
  eigenQk: {
    en: "Σλ / Σ|λ| = {score}: near 1 tokens look at themselves.",
    zh: "Σλ / Σ|λ| = {score}：接近 1 表示词元关注自身。",
  },
  copying: { en: "Copying, every head", zh: "复制性：所有头" },
  copyingAbout: {
    en: "Σλ / Σ|λ| of each head's OV circuit. Random matrices have about 0. A cell chooses the head.",
    zh: "每个头 OV 回路的 Σλ / Σ|λ|。随机矩阵约为 0。点击格子选择该头。",
  },
  through: { en: "through", zh: "经由" },
  embeddings: { en: "embeddings: does it say what it reads?", zh: "词嵌入：是否复述所读？" },
  stream: { en: "the stream: does it write what it reads?", zh: "残差流：是否写回所读？" },
  effectsAbout: {
    en: "Each head is replaced by what it writes on average, one after the other, and the tokens that a repetition in this text tells are predicted again: so many bits more of surprise. A forward pass for each head.",
    zh: "逐个将每个头替换为其平均输出，再次预测文本中由重复可知的词元：惊讶度增加多少比特。每个头需要一次前向计算。",
  },
} satisfies Words;
