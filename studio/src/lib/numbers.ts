// How numbers are written.

const minus = (text: string) => text.replace("-", "−");

/** Decimals that tell numbers of this size apart. */
export const places = (most: number): number => (most >= 100 ? 0 : most >= 3 ? 1 : most >= 0.3 ? 2 : 3);

export function signed(x: number, digits = 3): string {
  const size = Math.abs(x).toFixed(digits);
  return (+size === 0 ? "" : x < 0 ? "−" : "+") + size;
}

/** A signed number with as many decimals as tell numbers of this size apart; very small ones as powers of ten. */
export function fitted(x: number, most = Math.abs(x), figures = 3): string {
  if (most === 0 || x === 0) return "0";
  if (most < 1e-4) return (x < 0 ? "" : "+") + x.toExponential(figures - 2).replaceAll("-", "−");
  return signed(x, most >= 0.1 ? figures : Math.min(7, figures + Math.ceil(-Math.log10(most)) - 1));
}

/** A probability. */
export const share = (p: number): string =>
  p > 0 && p < 5e-5 ? "< 0.01 %" : `${(100 * p).toFixed(p >= 0.1 ? 0 : p >= 0.01 ? 1 : 2)} %`;

/** A very small number, such as a rounding error. */
export const tiny = (x: number): string => (x === 0 ? "0" : minus(x.toExponential(1)));

export const count = (n: number): string => minus(n.toLocaleString("en"));

/** A number of any size. */
export function number(x: number | null | undefined): string {
  if (x === null || x === undefined || Number.isNaN(x)) return "–";
  if (Number.isInteger(x)) return count(x);
  return Math.abs(x) < 1e-3 ? tiny(x) : minus(String(+x.toPrecision(4)));
}

/** The largest of some numbers by absolute value; never 0, as it divides. */
export function largest(numbers: ArrayLike<number>): number {
  let most = 1e-12;
  for (let i = 0; i < numbers.length; i++) if (Math.abs(numbers[i]!) > most) most = Math.abs(numbers[i]!);
  return most;
}
