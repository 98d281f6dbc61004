import type { Words } from "../lib/words";

export const frame = {
  skip: { en: "Skip to the page", zh: "跳到页面内容" },
  pages: { en: "Pages", zh: "页面" },
  notHere: { en: "“{page}” has nothing to show of this model. {why}", zh: "“{page}”无法展示此模型。{why}" },
  instead: { en: "These pages do:", zh: "可用的页面:" },
  pageGone: {
    en: "This page could not be loaded. Is the studio's server still running?",
    zh: "无法加载此页面。服务器还在运行吗?",
  },
  "no.attention": {
    en: "A {kind} has no attention: it carries one state from token to token.",
    zh: "{kind} 没有注意力:它逐词元传递一个状态。",
  },
  "no.stream": {
    en: "A {kind} has no residual stream: it carries one state from token to token.",
    zh: "{kind} 没有残差流:它逐词元传递一个状态。",
  },
  "no.words": {
    en: "This model says no next token: what stands on top of it answers something else.",
    zh: "此模型不预测下一个词元:它的输出头另有用途。",
  },
  "no.writing": { en: "This model reads texts and writes none.", zh: "此模型只读取文本,不生成文本。" },
  "no.source": { en: "Only an encoder–decoder reads a source.", zh: "只有编码器–解码器读取源文本。" },
  "no.units": { en: "Only a recurrent model has units that carry a state.", zh: "只有循环模型具有携带状态的单元。" },
  pick: { en: "Choose a model", zh: "选择模型" },
  none: {
    en: "No model yet: train one here, or start the studio with one.",
    zh: "还没有模型:在此训练一个,或启动时指定一个。",
  },
  hub: { en: "Name on the Hugging Face hub, owner/name", zh: "Hugging Face 模型名,owner/name" },
  add: { en: "Add", zh: "添加" },
  step: { en: "step {n}", zh: "第 {n} 步" },
  parameters: { en: "{n} parameters", zh: "{n} 个参数" },
  zoomIn: { en: "Zoom in", zh: "放大" },
  zoomOut: { en: "Zoom out", zh: "缩小" },
  zoomAll: { en: "All", zh: "全部" },
  zoomHow: { en: "Zoom with + − or Ctrl and the wheel; then drag.", zh: "用 + − 或 Ctrl 加滚轮缩放,然后拖动。" },
  seen: { en: "rows {a} … {b}, columns {c} … {d}; drag to move", zh: "第 {a} … {b} 行,第 {c} … {d} 列;拖动以移动" },
} satisfies Words;
