// What pages say, in both languages. Each page has its own words beside it; these are the frame's.
import { view, type Language } from "./state.svelte";

export type Words = Record<string, Record<Language, string>>;

/** What stands for a key now; `{name}` is filled in. */
export function say<W extends Words>(
  words: W,
  key: keyof W & string,
  filled: Record<string, string | number> = {},
): string {
  const said = words[key]?.[view.language] ?? key;
  return said.replace(/\{(\w+)\}/g, (whole, name) => String(filled[name] ?? whole));
}

export const common = {
  loading: { en: "Opening the model…", zh: "正在打开模型…" },
  fetching: { en: "One moment…", zh: "请稍候…" },
  computing: { en: "Computing…", zh: "正在计算…" },
  cancel: { en: "Cancel", zh: "取消" },
  again: { en: "Try again", zh: "重试" },
  close: { en: "Close", zh: "关闭" },
  copied: { en: "Copied", zh: "已复制" },
  code: { en: "Copy as code", zh: "复制为代码" },
  save: { en: "Save as one HTML file", zh: "保存为单个 HTML 文件" },
  test: { en: "Test it", zh: "验证" },
  testAbout: {
    en: "Run the ablations that this view suggests: predicted beside actual effect.",
    zh: "运行此视图所暗示的消融实验：预测效果与实际效果并列。",
  },
  model: { en: "Model", zh: "模型" },
  prompt: { en: "Text", zh: "文本" },
  source: { en: "Source", zh: "源文本" },
  run: { en: "Read it", zh: "读取" },
  compare: { en: "Compare", zh: "比较" },
  compareStop: { en: "Stop comparing", zh: "停止比较" },
  language: { en: "中文", zh: "English" },
  above: { en: "above zero, up to {most}", zh: "大于零，最大 {most}" },
  below: { en: "below zero", zh: "小于零" },
  difference: { en: "recorded − plain run: {x}", zh: "记录运行与普通运行之差：{x}" },
  gap: { en: "completeness gap {x}", zh: "完整性差距 {x}" },
  seed: { en: "seed {x}", zh: "随机种子 {x}" },
  recorded: { en: "{x} MB recorded", zh: "已记录 {x} MB" },
} satisfies Words;
