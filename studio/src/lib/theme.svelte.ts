// The theme of the system, where the user has not chosen one: the style sheet knows "light" and "dark" alone.
import { untrack } from "svelte";
import { view } from "./state.svelte";

export function followSystem(): void {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  $effect(() => {
    const apply = () => {
      document.documentElement.dataset.theme = view.theme === "auto" ? (dark.matches ? "dark" : "light") : view.theme;
      untrack(() => (view.painted += 1));
    };
    apply();
    dark.addEventListener("change", apply);
    return () => dark.removeEventListener("change", apply);
  });
}
