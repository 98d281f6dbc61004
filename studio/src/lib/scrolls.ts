// What scrolls sideways can be reached by the keyboard, where nothing in it can: `{@attach scrolls}`.
import type { Attachment } from "svelte/attachments";

export const scrolls: Attachment<HTMLElement> = (box) => {
  const look = () => {
    const inside = box.querySelector("button, a, input, select, [tabindex='0']");
    if (box.scrollWidth > box.clientWidth && !inside) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };
  const watch = new ResizeObserver(look);
  watch.observe(box);
  if (box.firstElementChild) watch.observe(box.firstElementChild);
  return () => watch.disconnect();
};
