// --- attention -------------------------------------------------------------------------------------

const HABITS = { previous: "prev", first: "first", last: "last", itself: "self" };
const PLACES = { previous: "the token before", first: "the first token", last: "the last token", itself: "the token itself", others: "other tokens" };

pictures.attention = (attention) => {
  const { layers, heads, first, causal } = attention;
  const names = attention.tokens.slice(first);
  const keys = attention.keys ?? names;
  const each = causal ? (names.length * (names.length + 1)) / 2 : names.length * keys.length;
  const bytes = Uint8Array.from(atob(attention.steps), (c) => c.charCodeAt(0));
  const numbers = new DataView(bytes.buffer);
  const weight = (layer, head, i, j) => {
    if (causal && j > i) return null;
    const at = causal ? (i * (i + 1)) / 2 + j : i * keys.length + j;
    return numbers.getUint16(2 * ((layer * heads + head) * each + at), true) / 65535;
  };
  const minus = (x) => (x === null ? null : -x); // blue is the ramp below zero

  let [layer, head] = attention.shown;
  const heading = el("p", {});
  const large = grid(names, keys, (i, j) => minus(weight(layer, head, i, j)), (i, j) => [
    token(names[i]), ` (${first + i}) looks at `, token(keys[j]), ` (${attention.keys ? j : first + j}) with `,
    el("b", {}, share(weight(layer, head, i, j))),
  ], { diagonal: causal });
  large.room.prepend(heading);

  const thumbs = [];
  const table = el("table", {});
  table.append(el("tr", {}, el("th", {}, "head"), ...Array.from({ length: heads }, (_, h) => el("th", {}, `${h}`))));
  for (let l = 0; l < layers; l++) {
    const line = el("tr", {}, el("th", {}, `layer ${l}`));
    for (let h = 0; h < heads; h++) {
      const [where, much] = attention.habits[l][h];
      const canvas = el("canvas", {});
      const label = `layer ${l} head ${h}, ${much > 0.005 ? `${share(much)} on ${PLACES[where]}` : ""}`;
      const button = el("button", { className: "thumb", type: "button", "aria-label": label }, canvas);
      button.addEventListener("click", () => choose(l, h));
      tipped(button, () => [label]);
      thumbs.push({ l, h, canvas, button });
      const habit = where in HABITS && much >= 0.4 ? `${HABITS[where]} ${Math.round(100 * much)}%` : "";
      line.append(el("td", {}, button, el("div", { className: "habit" }, habit)));
    }
    table.append(line);
  }
  const side = heads <= 8 ? 58 : heads <= 12 ? 44 : 34;
  roving(thumbs.map(({ button }) => button), heads, layer * heads + head);

  function choose(l, h) {
    [layer, head] = [l, h];
    heading.textContent = `Layer ${l}, head ${h}`;
    for (const thumb of thumbs) thumb.button.setAttribute("aria-pressed", thumb.l === l && thumb.h === h);
    large.canvas.setAttribute("aria-label", `attention of layer ${l}, head ${h}: ${names.length} tokens; the arrow keys move over the cells`);
    large.again();
  }

  const what = attention.keys ? "each token of the target (row) takes from each of the source (column)" : causal
    ? "each token (row) takes from each earlier one (column, named on the diagonal)" : "each token (row) takes from each other (column)";
  root.append(section(
    title(attention.name ?? "") || "Attention",
    `How much ${what}. The rows sum to 100 %. Choose a head on the small pictures.`,
    el("div", { className: "heads" }, large.room, el("div", { className: "thumbs" }, table)),
    first ? el("p", { className: "note" }, `The last ${names.length} of ${attention.tokens.length} tokens.`) : null,
    legend("blues", "share of the row", [["0", 0], ["1 %", 0.1], ["10 %", Math.sqrt(0.1)], ["50 %", Math.sqrt(0.5)], ["100 %", 1]],
      el("span", {}, "under a small picture: where its rows look most on average, where that is 40 % or more")),
  ));
  const drawThumbs = () => {
    for (const { l, h, canvas } of thumbs) {
      const context = sized(canvas, side, side);
      const [down, across] = [Math.min(names.length, canvas.height), Math.min(keys.length, canvas.width)];
      context.drawImage(cellImage(names.length, keys.length, (i, j) => minus(weight(l, h, i, j)), down, across), 0, 0, side, side);
    }
  };
  redraw.push(drawThumbs);
  drawThumbs();
  choose(layer, head);
};
