// How long ago something was, in the words of the page's language.
import type { Language } from "./state.svelte";

const units = [
  ["year", 31_557_600],
  ["month", 2_629_800],
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
] as const;

/** Of a time in seconds since 1970; empty where nobody knows it. */
export function ago(time: number, language: Language, now = Date.now() / 1000): string {
  if (!time) return "";
  const said = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
  const passed = Math.max(0, now - time);
  const [unit, size] = units.find(([, size]) => passed >= size) ?? (["second", 1] as const);
  return said.format(unit === "second" ? 0 : -Math.floor(passed / size), unit);
}
