// What a receipt says, in words.
import type { Receipt } from "./api";
import { tiny } from "./numbers";
import { common, say } from "./words";

export const factsOf = (receipt: Receipt): string[] =>
  [
    say(common, "difference", { x: tiny(receipt.difference) }),
    receipt.gap === null ? "" : say(common, "gap", { x: tiny(receipt.gap) }),
    receipt.seed === null ? "" : say(common, "seed", { x: receipt.seed }),
    receipt.bytes ? say(common, "recorded", { x: (receipt.bytes / 2 ** 20).toFixed(1) }) : "",
    `${receipt.milliseconds.toFixed(0)} ms`,
    receipt.dtype,
  ].filter(Boolean);
