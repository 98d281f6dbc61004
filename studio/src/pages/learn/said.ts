// What the chapters say: their titles, what they show, what to try, and how other kinds of models differ.
import type { Words } from "../../lib/words";

export const said = {
  "tokens.title": { en: "Tokens", zh: "词元" },
  "tokens.lead": {
    en: "A model reads no letters. A tokenizer cuts the text into pieces out of a fixed vocabulary of V entries, and only their numbers go in. Frequent words are one token; rare ones fall apart into several.",
    zh: "模型读到的不是字母。分词器把文本切成固定词表（共 V 个）中的片段，输入模型的只有它们的编号。常见的词是一个词元，少见的词会被拆成几个。",
  },
  "tokens.try": {
    en: "Change the text: add a space, a capital letter, a typing error, a Chinese word, and see which tokens change.",
    zh: "改动文本：加一个空格、一个大写字母、一个错字或一个中文词，看看哪些词元变了。",
  },
  "tokens.kinds": {
    en: "The same for every kind. Encoders often put marks around a text ([CLS], [SEP]); an encoder–decoder has two texts, the source and the target, and this shows the target.",
    zh: "各类模型都一样。编码器常在文本首尾加上标记（[CLS]、[SEP]）；编码器–解码器有源文本和目标文本，这里显示目标文本。",
  },
  "embedding.title": { en: "Embeddings", zh: "嵌入" },
  "embedding.lead": {
    en: "Each number picks a row of a table E: a vector that was learned. From here on a token is this list of numbers. Tokens that are used alike come to point the same way; the cosine of their vectors says how much.",
    zh: "每个编号从表 E 中取出一行，即学得的向量；此后词元就是这一串数。用法相近的词元，向量方向也相近，用余弦来衡量。",
  },
  "embedding.try": {
    en: "Choose a token, and type another to compare it with. Most tokenizers give a word after a space and the same word without one two different rows.",
    zh: "选择一个词元，再输入另一个与之比较。多数分词器中，前面带空格的词与不带空格的词是不同的两行。",
  },
  "embedding.kinds": {
    en: "“Added” is what a model puts on the row before its first layer: a position (GPT-2, BERT), a kind of text, a scale or a norm. Models with rotary positions (Llama, Qwen), T5's distances and GRUs add nothing here.",
    zh: "“加上的”是模型在第一层之前给这一行加上的东西：位置（GPT-2、BERT）、文本类型、缩放或归一化。使用旋转位置编码的模型（Llama、Qwen）、用相对距离的 T5 以及 GRU 在此不加任何东西。",
  },
  "attention.title": { en: "Attention", zh: "注意力" },
  "attention.lead": {
    en: "A token looks for others. Its query q meets the key k of each token that it sees; the products, divided by √d, become weights by softmax, which add up to 1; and the values v are added up by these weights.",
    zh: "一个词元会去寻找其他词元。它的查询 q 与每个可见词元的键 k 相乘，除以 √d，经 softmax 变成总和为 1 的权重，再按权重把值 v 加起来。",
  },
  "attention.try": {
    en: "Multiply the scores: at 0 every token counts alike, above 1 the strongest takes all. That √d keeps the scores from growing with the width.",
    zh: "把分数乘大或乘小：乘 0 时所有词元同等重要，大于 1 时最强者独占。除以 √d 正是为了不让分数随维度变大。",
  },
  "attention.kinds": {
    en: "In a decoder a token sees itself and what stands before it; in an encoder all tokens see each other; in an encoder–decoder the cross-attention looks from the target at the source. Rotary positions are in q and k already; T5 adds a number for the distance to the score.",
    zh: "解码器中的词元只看到自己和前面的词元；编码器中的词元彼此可见；编码器–解码器的交叉注意力从目标看向源文本。旋转位置已包含在 q、k 中；T5 会按距离给分数加一个数。",
  },
  "attention.lead.units": {
    en: "A recurrent model has no attention. It carries one state from token to token; gates between 0 and 1 decide, unit by unit, how much of it stays and how much is written anew.",
    zh: "循环模型没有注意力。它在词元之间传递一个状态；取值 0 到 1 的门逐单元决定保留多少、改写多少。",
  },
  "attention.try.units": {
    en: "Set the gate that keeps: at 1 the unit keeps the past and sees nothing new, at 0 (in a GRU) it forgets everything.",
    zh: "设置保留门：为 1 时该单元只保留过去；为 0 时（GRU）则忘掉一切。",
  },
  "attention.kinds.units": {
    en: "In a transformer (a decoder, an encoder, an encoder–decoder) a token looks at all others at once, by attention, instead of through one state that all must pass.",
    zh: "在 Transformer（解码器、编码器、编码器–解码器）中，词元通过注意力同时看到所有其他词元，而不必都挤过同一个状态。",
  },
  "block.title": { en: "The block", zh: "模块" },
  "block.lead": {
    en: "A layer writes nothing over: attention and then the MLP read the residual stream through a norm, and add to it. A neuron of the MLP is one activation; through its column of the last matrix it writes into every channel.",
    zh: "一层不会覆盖任何东西：注意力和 MLP 先后经归一化读取残差流，再把结果加回去。MLP 的一个神经元就是一个激活值，通过最后一个矩阵中自己的一列写入每个通道。",
  },
  "block.try": {
    en: "Move what goes into the neuron, and follow it along the curve of the activation to what it writes.",
    zh: "改变神经元的输入，沿激活函数曲线看它写入的值如何变化。",
  },
  "block.kinds": {
    en: "Decoders and encoders are built of the same block. The norm stands before each part, behind the sum (BERT, BART) or on what a part writes; LayerNorm also takes off the mean. An encoder–decoder has a third part between the two, the cross-attention. A GRU's layer is its cell.",
    zh: "解码器和编码器由同样的模块构成。归一化可以在每部分之前、在求和之后（BERT、BART）或加在其输出上；LayerNorm 还会减去均值。编码器–解码器中间多一个交叉注意力。GRU 的一层就是它的单元。",
  },
  "block.lead.units": {
    en: "A layer of a recurrent model is its cell: it reads the token's vector (or the layer below) and its own state before, and makes the next state. Layers stand on one another, each with a state of its own.",
    zh: "循环模型的一层就是它的单元：读取词元向量（或下一层的输出）和自己之前的状态，得到新的状态。各层叠放，各有自己的状态。",
  },
  "block.try.units": {
    en: "Choose another layer or unit: some units hold their state for a whole sentence, others are written anew at each token.",
    zh: "换一层或换一个单元：有的单元在整句中保持状态，有的在每个词元处都被改写。",
  },
  "block.kinds.units": {
    en: "A transformer's block has attention and an MLP instead, which add to a residual stream through norms.",
    zh: "Transformer 的模块则由注意力和 MLP 组成，它们经归一化读取残差流并把结果加回去。",
  },
  "loss.title": { en: "Loss", zh: "损失" },
  "loss.lead": {
    en: "The model gives every possible answer a logit s; softmax makes them chances p. The loss is −ln of the chance of the right answer y: 0 when it was certain, large when it was surprised. Training makes this number small.",
    zh: "模型给每个可能的答案一个 logit s，softmax 把它们变成概率 p。损失是正确答案 y 的概率的 −ln：完全确定时为 0，越意外越大。训练就是让这个数变小。",
  },
  "loss.try": {
    en: "Raise the right answer's logit: its chance grows and the loss falls. The gradient is simply p − 1 for the right answer and p for all others, so it dies away when the model is right.",
    zh: "提高正确答案的 logit：概率上升，损失下降。梯度很简单：正确答案为 p − 1，其余为 p，因此模型答对时梯度就消失了。",
  },
  "loss.kinds": {
    en: "Decoders, GRUs and encoder–decoders are asked for the next token at every position at once. An encoder that fills gaps is asked for the token that was hidden, one with labels for the label of the text (the model's own answer is taken for the right one here).",
    zh: "解码器、GRU 和编码器–解码器在每个位置都要预测下一个词元。填空的编码器要预测被遮住的词元；带标签的编码器要给出文本的标签（这里把模型自己的答案当作正确答案）。",
  },
  "gradient.title": { en: "Gradient", zh: "梯度" },
  "gradient.lead": {
    en: "How would the loss change if this one weight were a little larger? Backpropagation answers that for all weights in one pass. Trying it out (computing the loss a little above and below) finds the same number. Each token asks for its own change; the gradient is their sum.",
    zh: "如果这一个权重稍大一点，损失会怎样变化？反向传播一次就给出所有权重的答案。直接试一试（在稍大和稍小处各算一次损失）得到同样的数。每个词元都有自己的要求，梯度是它们的总和。",
  },
  "gradient.try": {
    en: "Move the weight: near its place the loss follows the straight line of the gradient; further away it leaves it. That is why steps are small.",
    zh: "移动这个权重：在原处附近，损失沿梯度的直线变化；走远了就偏离直线。所以每一步都要小。",
  },
  "gradient.kinds": {
    en: "The same for every kind; only what the loss asks for differs. Weights that are kept quantised have no gradient: of such a model one in floating point is shown, as of a norm.",
    zh: "各类模型都一样，不同的只是损失要求什么。量化保存的权重没有梯度：对这样的模型，这里显示一个浮点权重，例如归一化层的权重。",
  },
  "step.title": { en: "One step", zh: "一步优化" },
  "step.lead": {
    en: "AdamW moves each weight by the mean of its recent gradients m, divided by the root of the mean of their squares v. So a step is about as long as the learning rate, however large the gradient: its sign decides. Decay pulls the weight towards 0.",
    zh: "AdamW 用近期梯度的均值 m 除以平方均值 v 的平方根来移动每个权重。因此无论梯度大小，步长都约等于学习率，由符号决定方向。权重衰减把权重拉向 0。",
  },
  "step.try": {
    en: "Change the learning rate and the decay. The later rows are given the same gradient again: see how both moments grow, and how their corrections keep the step alike.",
    zh: "改变学习率和衰减。后面各行再次使用同样的梯度：看两个矩如何增长，修正又如何让步长保持不变。",
  },
  "step.kinds": {
    en: "The same for every kind of model. Cutaway's own training uses Muon for matrices and AdamW for the rest unless told otherwise; nothing is changed here.",
    zh: "各类模型都一样。Cutaway 的训练默认对矩阵使用 Muon，其余使用 AdamW；这里不会改动模型。",
  },
  "training.title": { en: "Training", zh: "训练" },
  "training.lead": {
    en: "Training is this step, for all weights, again and again, each time on other texts. Here it is a few steps on your text alone, on a copy: the loss falls quickly, because the model learns the text by heart.",
    zh: "训练就是对所有权重一次次地走这一步，每次换不同的文本。这里在副本上只用你的文本走几步：损失很快下降，因为模型把文本背下来了。",
  },
  "training.try": {
    en: "Raise the learning rate until the loss jumps up instead of falling; lower it until nothing moves.",
    zh: "提高学习率，直到损失不降反升；再降低，直到几乎不动。",
  },
  "training.kinds": {
    en: "The same for every kind that learns by cross-entropy. Of a large model only the last layer is trained here, to spare memory. On the page Training a whole training runs, on texts of yours.",
    zh: "凡以交叉熵学习的模型都一样。大模型在此只训练最后一层，以节省内存。“训练”页面可以用你的文本进行完整的训练。",
  },
  "sampling.title": { en: "Sampling", zh: "采样" },
  "sampling.lead": {
    en: "To write, a model draws its next token. Logits are divided by the temperature T; the unlikely ends may be cut off; and a number u between 0 and 1 falls into the stretch of one token. Then all begins anew with that token at the end.",
    zh: "写作时，模型抽取下一个词元。logit 先除以温度 T，可以切掉不太可能的尾部，然后一个 0 到 1 之间的随机数 u 落入某个词元的区间。接着把该词元接到末尾，从头再来。",
  },
  "sampling.try": {
    en: "At T = 0 the likeliest always wins; above 1 the rare ones gain. Move u to see how the same chances give different texts.",
    zh: "T = 0 时总是取最可能的；大于 1 时少见的词元机会增加。移动 u，看同样的概率如何产生不同的文本。",
  },
  "sampling.kinds": {
    en: "The same for decoders, GRUs and encoder–decoders (which begin from the source). Encoders do not write: they take the likeliest. Cutaway's engine draws with the tokens in the order of the vocabulary; here they stand by chance, as on paper: the chances are the same.",
    zh: "解码器、GRU 和编码器–解码器（从源文本开始）都一样。编码器不写作，只取最可能的答案。Cutaway 引擎按词表顺序抽取，这里按概率从大到小排列，如同纸上演算：概率相同。",
  },
  "sigmoid.title": { en: "By hand: two classes", zh: "手算：二分类" },
  "sigmoid.lead": {
    en: "The smallest model that learns, worked out as on paper: is a review good (1) or bad (0)? Each feature is counted, weighted and added up; σ makes a chance of the sum; the loss compares it with the truth; and one step improves every weight.",
    zh: "最小的会学习的模型，像在纸上一样一步步演算：一条评论是好评（1）还是差评（0）？把特征计数、加权、求和，用 σ 变成概率，用损失与真值比较，再走一步改进每个权重。",
  },
} satisfies Words;
