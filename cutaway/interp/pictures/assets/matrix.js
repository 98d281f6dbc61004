// --- numbers by row and column ------------------------------------------------------------------------

pictures.matrix = (matrix) => {
  const { rows, columns, values, unit, signed: both } = matrix;
  const known = values.flat().filter((x) => x !== null);
  const most = Math.max(1e-300, ...known.map(Math.abs));
  const axis = (name, label) => (name ? [`${name} `, token(label)] : [token(label)]);
  const large = grid(rows, columns, (i, j) => (values[i][j] === null ? null : values[i][j] / most), (i, j) => [
    ...axis(matrix.row_axis, rows[i]), ", ", ...axis(matrix.column_axis, columns[j]), ": ", el("b", {}, number(values[i][j])), ` ${unit}`,
  ], { most: 1000, tallest: 34 });
  large.canvas.setAttribute("aria-label", `${matrix.what}: ${rows.length} rows and ${columns.length} columns; the arrow keys move over the cells`);
  const order = values.flatMap((line, i) => line.map((x, j) => [x, i, j])).filter(([x]) => x !== null).sort((a, b) => Math.abs(b[0]) - Math.abs(a[0]));
  const table = el("table", { className: "plain" }, el("tr", {}, el("th", {}, matrix.row_axis || "row"), el("th", {}, matrix.column_axis || "column"), el("th", { className: "right" }, unit)));
  for (const [x, i, j] of order.slice(0, 8)) table.append(el("tr", {}, el("td", {}, token(rows[i])), el("td", {}, token(columns[j])), el("td", { className: "right" }, both ? signed(x, places(most) + 1) : number(x))));
  root.append(section(
    title(matrix.name ?? "") || title(matrix.what),
    `${matrix.name ? `${title(matrix.what)}. ` : ""}Rows are ${matrix.row_axis ? `${matrix.row_axis}s` : "named at the left"}, columns ${matrix.column_axis ? `${matrix.column_axis}s` : "named above"}; below them the largest.`,
    large.room,
    both ? signedLegend(unit, most) : legend("oranges", unit, [0, 0.0625, 0.25, 0.5625, 1].map((t) => [(t * most).toPrecision(2), Math.sqrt(t)])),
    table,
  ));
};
