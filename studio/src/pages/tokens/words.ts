import type { Words } from "../../lib/words";

export const words = {
  title: { en: "Generate & tokens", zh: "生成与词元" },
  about: {
    en: "The text as the model reads it, token by token; the bits under each say how surprised the model was.",
    zh: "模型逐词元读到的文本;每个词元下方的比特数表示模型的惊讶程度。",
  },
} satisfies Words;
