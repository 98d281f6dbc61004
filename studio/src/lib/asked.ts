// What Python says of a number or a model in fixed forms, in the language of the page.
import { view, type Language } from "./state.svelte";

const QUANTITIES: Record<string, string> = { logit: "logit", "log-probability": "对数概率", probability: "概率" };
const TARGET =
  /^(logit|log-probability|probability) of ([^]+?)(?: minus that of ([^]+?))?(?: (after|at) “([^]*)” \(position (\d+)\))?$/;
const MISSED = /^(.+) \(the scores miss their sum of (\S+) by (\S+): do not trust them\)$/;
const COUNTED: Record<string, string> = { layer: "层", head: "头", channel: "通道", unit: "单元" };
const KINDS: Record<string, string> = { decoder: "解码器", encoder: "编码器", seq2seq: "编码器–解码器" };

/** Which number is asked about (`cutaway.interp.target`), such as “logit of “ Paris” after “ is” (position 5)”. */
export function inWords(what: string, language: Language = view.language): string {
  const found = language === "zh" ? TARGET.exec(what) : null;
  if (!found) return what;
  const [, quantity, answer, other, where, token, position] = found;
  const place = where ? `“${token}”（位置 ${position}）${where === "after" ? "之后" : "处"}` : "";
  return `${place}${answer} 的 ${QUANTITIES[quantity!]}${other ? ` 减去 ${other} 的` : ""}`;
}

/** A method by its name, with the warning that Python puts behind it. */
export function warned(what: string, method: string, language: Language = view.language): string {
  if (language === "en") return what;
  const found = MISSED.exec(what);
  return found ? `${method}（各分数之和应为 ${found[2]}，相差 ${found[3]}：请勿采信）` : method;
}

/** A model's kind and shape. */
export function shapeOf({ kind, shape }: { kind: string; shape: string }, language: Language = view.language): string {
  const counted = shape.replace(/(\d+) (layer|head|channel|unit)s/g, (whole, n, what) =>
    language === "zh" ? `${n} ${COUNTED[what]}` : n === "1" ? `1 ${what}` : whole,
  );
  return `${language === "zh" ? (KINDS[kind] ?? kind) : kind} · ${language === "zh" ? counted.replace(", ", "，") : counted}`;
}
