// Canvases that are as sharp as the screen.

export const ratio = (): number => globalThis.devicePixelRatio || 1;

/** An empty canvas of a size in the page's pixels, to be drawn on in these. */
export function fresh(canvas: HTMLCanvasElement, wide: number, high: number): CanvasRenderingContext2D {
  const [w, h] = [Math.round(wide * ratio()), Math.round(high * ratio())];
  if (canvas.width !== w || canvas.height !== h) {
    [canvas.width, canvas.height] = [w, h];
    [canvas.style.width, canvas.style.height] = [`${wide}px`, `${high}px`];
  }
  const context = canvas.getContext("2d")!;
  context.setTransform(ratio(), 0, 0, ratio(), 0, 0);
  context.clearRect(0, 0, wide, high);
  return context;
}
