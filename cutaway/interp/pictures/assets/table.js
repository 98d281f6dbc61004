// --- rows of words and numbers ------------------------------------------------------------------------

const MOST_LINES = 100;

pictures.table = (table) => {
  const { columns, rows } = table;
  const numeric = columns.map((_, j) => rows.some((line) => typeof line[j] === "number") && rows.every((line) => typeof line[j] === "number" || line[j] === null));
  const body = el("tbody", {});
  let lines = [...rows.keys()];
  let [sorted, up] = [null, false];
  const fill = () => {
    body.replaceChildren(...lines.slice(0, MOST_LINES).map((i) => el("tr", {}, ...rows[i].map((cell, j) =>
      el("td", { className: numeric[j] ? "right" : "" }, typeof cell === "number" ? number(cell) : cell === null ? "–" : typeof cell === "boolean" ? (cell ? "yes" : "no") : token(String(cell), "prose"))))));
  };
  const heads = columns.map((name, j) => {
    const button = el("button", { type: "button" }, name);
    const head = el("th", { scope: "col", className: numeric[j] ? "right" : "" }, button);
    button.addEventListener("click", () => {
      [sorted, up] = [j, sorted === j ? !up : !numeric[j]];
      const compare = (a, b) => (numeric[j] ? (a ?? -Infinity) - (b ?? -Infinity) : String(a).localeCompare(String(b)));
      lines.sort((a, b) => (up ? 1 : -1) * compare(rows[a][j], rows[b][j]));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      fill();
    });
    return head;
  });
  fill();
  root.append(section(
    title(table.name ?? "") || title(table.what), table.name ? title(table.what) : null,
    el("div", { className: "scroll" }, el("table", { className: "plain" }, el("thead", {}, el("tr", {}, ...heads)), body)),
    rows.length > MOST_LINES ? el("p", { className: "note" }, `${MOST_LINES} of ${count(rows.length)} rows; sort to see others.`) : null,
  ));
};
