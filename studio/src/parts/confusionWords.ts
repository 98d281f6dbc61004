import type { Words } from "../lib/words";

export const confusion = {
  truth: { en: "true", zh: "真实" },
  said: { en: "said", zh: "回答" },
  often: { en: "how often", zh: "次数" },
  of: { en: "{n} of {all}", zh: "{all} 中的 {n}" },
} satisfies Words;
