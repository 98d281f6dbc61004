// The one tip beside the pointer or the focused element. `use:tipped={"text"}` or an attachment on any element.
import type { Attachment } from "svelte/attachments";

export type TipLine = [name: string, value: string];
export const tip = $state<{ lines: (string | TipLine)[]; x: number; y: number }>({ lines: [], x: 0, y: 0 });

let owner: HTMLElement | null = null; // what the tip is about

export function tipped(content: () => (string | TipLine)[]): Attachment<HTMLElement> {
  return (element) => {
    const show = (x: number, y: number) => {
      owner = element;
      Object.assign(tip, { lines: content(), x, y });
    };
    const enter = (event: PointerEvent) => show(event.clientX, event.clientY);
    // an element that goes is blurred while others are being drawn, when nothing may change
    const hide = () => queueMicrotask(() => owner === element && tip.lines.splice(0));
    const focus = () => {
      const box = element.getBoundingClientRect();
      if (element.matches(":focus-visible")) show(box.left, box.bottom - 12);
    };
    const blur = () => queueMicrotask(hide); // it also comes while a page takes a focused element away
    const listeners = { pointerenter: enter, pointermove: enter, pointerleave: hide, focus, blur } as const;
    for (const [name, listener] of Object.entries(listeners)) element.addEventListener(name, listener as EventListener);
    return () => {
      hide();
      for (const [name, listener] of Object.entries(listeners))
        element.removeEventListener(name, listener as EventListener);
    };
  };
}
