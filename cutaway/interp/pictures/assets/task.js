// --- what was measured of a task: figures with intervals, confusions, calibration, errors -------------------

const fixed = (x) => x.toFixed(Math.abs(x) < 10 ? 3 : 1).replace("-", "−");

// Rows of numbers with their intervals on one axis for each group; `whole` is a line through all of them.
pictures.intervals = ({ what, about, groups, whole }) => {
  const made = groups.map(({ name, rows }) => {
    const values = rows.flatMap(({ low, high, value, other }) => [low, high, value, other]).filter((x) => x !== null && x !== undefined);
    if (whole !== undefined) values.push(whole);
    let [least, most] = [Math.min(...values), Math.max(...values)];
    if (most === least) [least, most] = most > 0.5 ? [most - 0.1, most] : [least, least + 0.1]; // all right, or all wrong
    const room = (most - least) * 0.04;
    [least, most] = [least - room, most + room];
    const at = (x) => `${(100 * (x - least)) / (most - least)}%`;
    const list = el("div", { className: "intervals" });
    for (const { label, value, low, high, tone, note, other } of rows) {
      const track = el("span", { className: "track" });
      const mark = (kind, left, right) => {
        const one = el("span", { className: kind });
        one.style.left = at(left);
        if (right !== undefined) one.style.width = `calc(${at(right)} - ${at(left)})`;
        if (kind !== "whole" && kind !== "other") coloured(one, "background", [1, 0, 5][tone] ?? 2);
        track.append(one);
      };
      if (whole !== undefined) mark("whole", whole);
      mark("reach", low, high);
      mark("dot", value);
      if (other !== null && other !== undefined) mark("other", other);
      const line = el("div", { className: "interval" }, el("span", { className: "name" }, label || "(empty)"), track,
        el("span", { className: "value" }, fixed(value)), el("span", { className: "note" }, `${fixed(low)} to ${fixed(high)}`), el("span", { className: "note count" }, note ?? ""));
      tipped(line, () => [el("div", {}, label), row("value", number(value)), row("95 % interval", `${number(low)} to ${number(high)}`),
        ...(note === undefined ? [] : [row("examples", note)]), ...(other === null || other === undefined ? [] : [row("baseline", number(other))])]);
      list.append(line);
    }
    return [el("h3", {}, name), list];
  });
  root.append(section(what, about, ...made.flat()));
};

// How often each label (row) was called what (column): right answers blue, wrong ones orange, by their share of the row.
pictures.confusion = ({ what, labels, columns, rows }) => {
  const many = columns.some((name) => name.length > 9) || columns.length > 12;
  const table = el("table", { className: many ? "confusion many" : "confusion" }, el("tr", {}, el("th", {}, "true ↓  said →"), ...columns.map((name) => el("th", { scope: "col" }, el("span", {}, clipped(name, many ? 28 : 12))))));
  rows.forEach(([name, ...counts], i) => {
    const total = counts.reduce((a, b) => a + b, 0);
    const line = el("tr", {}, el("th", { scope: "row" }, clipped(name, 40)));
    counts.forEach((n, j) => {
      const cell = el("td", {}, n ? count(n) : "·");
      if (n) tint(cell, columns[j] === name ? "blues" : "oranges", Math.sqrt(n / total) * 0.85);
      else cell.className = "none";
      tipped(cell, () => [row("true", labels[i]), row("said", columns[j]), row("how often", `${count(n)} of ${count(total)}`)]);
      line.append(cell);
    });
    table.append(line);
  });
  root.append(section("Confusion", "Rows are the true labels, columns what was said; blue is right, orange wrong, darker the larger its share of the row.", el("div", { className: "scroll" }, table)));
};

// How often answers are right over how sure they are; on the diagonal they know it exactly.
pictures.reliability = ({ what, of, lines }) => {
  const [side, left, bottom, top] = [360, 48, 44, 10];
  const x = (p) => left + p * (side - left - 24);
  const y = (p) => side - bottom - p * (side - bottom - top);
  const picture = svg("svg", { viewBox: `0 0 ${side} ${side}`, class: "curve square", role: "img", "aria-label": what });
  for (const t of [0, 0.25, 0.5, 0.75, 1]) {
    picture.append(svg("line", { class: "rule", x1: left, x2: x(1), y1: y(t), y2: y(t) }), svg("text", { x: left - 8, y: y(t) + 4, "text-anchor": "end" }, `${100 * t} %`));
    picture.append(svg("text", { x: x(t), y: side - bottom + 18, "text-anchor": "middle" }, `${100 * t} %`));
  }
  picture.append(svg("line", { class: "zero", x1: x(0), y1: y(0), x2: x(1), y2: y(1), "stroke-dasharray": "4 4" }));
  picture.append(svg("text", { x: x(0.5), y: side - 6, "text-anchor": "middle" }, "how sure"));
  const names = Object.keys(lines);
  const table = el("table", { className: "plain" }, el("tr", {}, ...["", "how sure", "how often right", of].map((head, i) => el("th", { className: i ? "right" : "" }, head))));
  names.forEach((name, n) => {
    const tone = names.length > 1 && n === 0 ? 5 : 1;
    const most = Math.max(...lines[name].map(([, , many]) => many));
    picture.append(coloured(svg("path", { d: lines[name].map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("") }), "stroke", tone));
    for (const [sure, right, many] of lines[name]) {
      const dot = coloured(svg("circle", { cx: x(sure), cy: y(right), r: 2 + 5 * Math.sqrt(many / most) }), "fill", tone);
      tipped(dot, () => [el("div", {}, name), row("how sure", share(sure)), row("right", share(right)), row(of, count(many))]);
      picture.append(dot);
      if (n === names.length - 1) table.append(el("tr", {}, el("td", {}, ""), ...[share(sure), share(right), count(many)].map((text) => el("td", { className: "right" }, text))));
    }
  });
  const key = el("p", { className: "legend" }, ...names.map((name, n) => swatch(LINES[names.length > 1 && n === 0 ? 5 : 1].slice(2), name)), el("span", {}, "dashed: as sure as right"));
  root.append(section("Does it know how sure it is?", `${title(what)}. Each dot is a tenth of the scale, the larger the more ${of} fall into it.`, el("div", { className: "pair" }, el("div", {}, picture, key), table)));
};

// The worst errors, each with what the answer is owed to.
pictures.misses = ({ wrong, examples, rows }) => {
  const list = rows.map(({ source, given, truth, answer, probability, right, why }) => {
    const sure = probability === null ? null : el("span", { className: "note" }, ` ${share(probability)}`);
    const partly = right > 0 ? el("span", { className: "note" }, ` · right by ${share(right)}`) : null;
    const head = el("p", { className: "verdict" }, el("b", { className: "wrong" }, answer), sure, el("span", { className: "note" }, " is not "), el("b", { className: "true" }, truth), partly, el("span", { className: "note source" }, source));
    const scored = !why ? [] : why.picture === "scores" ? [why] : why.picture === "panel" ? Object.values(why.parts).filter((part) => part.picture === "scores") : [];
    const text = given.map(([role, value]) => el("p", { className: "asked" }, role ? el("span", { className: "note" }, `${role}: `) : "", value));
    const inner = scored.length ? [...(given.length > 1 ? text : []), ...scored.map((one) => chipsOf(one)[0])] : text;
    const receipt = why?.receipt ? el("p", { className: "note" }, `${scored[0]?.what ?? ""}${scored[0]?.unit ? `, in ${scored[0].unit}` : ""} · ${why.receipt.milliseconds.toFixed(0)} ms`) : null;
    return el("div", { className: "miss" }, head, ...inner, receipt);
  });
  const explained = rows.some(({ why }) => why) ? " Under the words of the first: how much each of them speaks for the answer (orange) or against it (blue)." : "";
  root.append(section("The worst errors", `${count(wrong)} of ${count(examples)} answers are not wholly right; the ${rows.length === wrong ? "" : `${rows.length} `}surest of them first.${explained}`, ...list));
};
