// --- the page: its parts from top to bottom ----------------------------------------------------------------

pictures.panel = (panel) => {
  const figures = Object.entries(panel.figures);
  root.append(el("header", {},
    mark(),
    el("h1", {}, title(panel.title)),
    ...panel.notes.map((note) => el("p", { className: "said" }, note)),
    figures.length ? el("dl", { className: "figures" }, ...figures.flatMap(([name, value]) => [el("div", {}, el("dt", {}, name), el("dd", {}, number(value)))])) : null));
};

pictures.receipt = (receipt) => {
  const facts = [
    receipt.difference === 0 ? "recorded run − plain run: 0, bit for bit" : `difference from the plain run ${tiny(receipt.difference)}`,
    receipt.error !== undefined ? `ledger error ${tiny(receipt.error)}` : receipt.gap === null ? null : `completeness gap ${tiny(receipt.gap)}`,
    receipt.bytes ? `${(receipt.bytes / 2 ** 20).toFixed(1)} MB recorded` : null, `${receipt.milliseconds.toFixed(0)} ms`,
    receipt.dtype, receipt.seed === null ? null : `seed ${receipt.seed}`, receipt.source || null, `Cutaway ${data.version}`,
  ];
  const code = receipt.code ? el("details", { className: "code" }, el("summary", {}, "the Python that made this"), el("pre", {}, receipt.code)) : null;
  root.append(el("footer", { className: "receipt" }, ...facts.filter(Boolean).map((fact) => el("span", {}, fact)), code));
};

if (!["look", "panel"].includes(data.parts[0][0])) root.append(mark());
for (const [picture, part] of data.parts) pictures[picture](part);
if (data.parts.length === 1 && data.parts[0][1].receipt) pictures.receipt(data.parts[0][1].receipt);

const again = () => redraw.forEach((draw) => draw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) requestAnimationFrame(again);
  width = innerWidth;
});
