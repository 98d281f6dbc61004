// Colours of numbers: orange above zero, blue below, which every kind of colour vision tells apart.
import { view } from "./state.svelte";

export type Rgb = [number, number, number];
export type Ramp = (t: number) => Rgb;
export type Scale = "oranges" | "blues";

/** A ramp of the style sheet as it is now; reading it in an effect makes that follow the theme. */
export function ramp(name: Scale): Ramp {
  void view.painted;
  const stops = getComputedStyle(document.documentElement)
    .getPropertyValue(`--${name}`)
    .trim()
    .split(/\s+/)
    .map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)) as Rgb);
  return (t) => {
    const at = Math.min(0.9999, Math.max(0, t)) * (stops.length - 1);
    const [low, high] = [stops[Math.floor(at)]!, stops[Math.floor(at) + 1]!];
    return low.map((value, i) => Math.round(value + (high[i]! - value) * (at % 1))) as Rgb;
  };
}

/** -1 … 1 to a colour: the square root tells small numbers apart. */
export function diverging(): Ramp {
  const [plus, minus] = [ramp("oranges"), ramp("blues")];
  return (t) => (t < 0 ? minus : plus)(Math.sqrt(Math.abs(t)));
}

export const css = ([r, g, b]: Rgb): string => `rgb(${r} ${g} ${b})`;

/** Black or white, whichever has the higher contrast on a colour: 4.5 to 1 at least, which a softer black misses. */
export function ink([r, g, b]: Rgb): string {
  const light = (c: number) => ((c /= 255) <= 0.04 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b) > 0.179 ? "#000" : "#fff";
}
