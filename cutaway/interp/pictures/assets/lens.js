// --- the logit lens ---------------------------------------------------------------------------------

const MOST_COLUMNS = 512;

pictures.lens = (lens) => {
  const first = Math.max(0, lens.tokens.length - MOST_COLUMNS);
  const columns = lens.tokens.slice(first);
  const heading = columns.map((text, i) => {
    const made = el("th", { scope: "col" }, token(text));
    made.classList.toggle("chosen", looked?.position === first + i);
    return made;
  });
  const table = el("table", { className: "lens" }, el("thead", {}, el("tr", {}, el("th", {}, "after"), ...heading)));
  const cells = [];
  const last = lens.layers.length - 1;
  lens.layers.forEach((name, layer) => {
    const line = el("tr", {}, el("th", { scope: "row" }, layer === last ? `${name} = output` : name));
    columns.forEach((text, i) => {
      const { top, entropy } = lens.cells[layer][first + i];
      const right = top[0][0] === lens.tokens[first + i + 1];
      const cell = el("td", {}, token(top[0][0], right ? "right" : ""));
      tipped(cell, () => [
        el("div", {}, name, ", after ", token(text), ` (${first + i})`),
        ...top.map(([other, p]) => row(token(other), share(p))),
        row("entropy", `${entropy.toFixed(2)} bits`),
      ]);
      cells.push([cell, top[0][1]]);
      line.append(cell);
    });
    table.append(line);
  });
  tints(cells, "blues");
  roving(cells.map(([cell]) => cell), columns.length, 0);
  const scroll = el("div", { className: "scroll" }, table);
  root.append(section(
    title(lens.name ?? "") || "Logit lens",
    "What each layer would say next, if the model ended there: its likeliest token after each token of the text. The last row is the model's own output.",
    scroll,
    legend("blues", "probability", [["0", 0], ["25 %", 0.25], ["50 %", 0.5], ["75 %", 0.75], ["100 %", 1]],
      el("span", {}, "underlined: the token that did come next"),
      first ? el("span", {}, `the last ${columns.length} of ${lens.tokens.length} tokens`) : null),
  ));
  const chosen = heading[(looked?.position ?? columns.length + first - 1) - first];
  if (chosen) scroll.scrollLeft = chosen.offsetLeft - scroll.clientWidth + chosen.offsetWidth + 40;
};
