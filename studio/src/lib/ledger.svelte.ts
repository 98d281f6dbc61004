// The ledger that is open beside the page: any number of any page opens here.
import { expand, ledger, type LedgerResult, type Open, type Options, type Subject } from "./api";

type Asked = { subject: Subject; options: Options };
class Drawer {
  asked = $state.raw<Asked | null>(null);
  open = $state.raw<Open<LedgerResult> | null>(null);
  message = $state("");
  /** Where the keyboard was before it opened. */
  private from: HTMLElement | null = null;
  private control: AbortController | null = null;

  async show(subject: Subject, options: Options): Promise<void> {
    this.from ??= document.activeElement instanceof HTMLElement ? document.activeElement : null;
    this.control?.abort();
    const control = (this.control = new AbortController());
    [this.asked, this.message] = [{ subject, options }, ""];
    try {
      const made = await ledger(subject, options, { signal: control.signal });
      if (this.control === control) this.open = made;
    } catch (error) {
      if (!control.signal.aborted) [this.message, this.open] = [(error as Error).message, null];
    }
  }

  close(): void {
    this.control?.abort();
    [this.asked, this.open, this.message] = [null, null, ""];
    this.from?.focus();
    this.from = null;
  }

  expand(path: string[]): Promise<LedgerResult> {
    return expand(this.open!.id, path);
  }
}

export const drawer = new Drawer();

/** Open a number: `options` are those of `cutaway.interp.ledger`: what, position, token, minus, head, index, quantity. */
export const openLedger = (subject: Subject, options: Options) => drawer.show(subject, options);
