// --- lines over an axis ---------------------------------------------------------------------------------

const SVG = document.getElementById("svg").namespaceURI;
const LINES = ["--plus", "--minus", "--third", "--fourth", "--fifth", "--muted"];

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function coloured(element, what, number) {
  element.style[what] = `var(${LINES[number % LINES.length]})`;
  return element;
}

// About five round numbers between two.
function ticks(low, high) {
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const made = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + 1e-9 * step; t += step) made.push(Math.abs(t) < 1e-9 * step ? 0 : t);
  return made;
}

pictures.curve = (curve) => {
  const names = Object.keys(curve.lines);
  const [width, height, left, bottom, top, right] = [760, 320, 64, 44, 12, 16];
  const values = names.flatMap((name) => curve.lines[name]).filter((y) => y !== null);
  const [x0, x1] = [Math.min(...curve.at), Math.max(...curve.at)];
  let [y0, y1] = [Math.min(...values), Math.max(...values)];
  if (y0 === y1) [y0, y1] = [y0 - 0.5, y1 + 0.5];
  const x = (value) => left + ((value - x0) / (x1 - x0 || 1)) * (width - left - right);
  const y = (value) => height - bottom - ((value - y0) / (y1 - y0)) * (height - bottom - top);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "curve", role: "img", "aria-label": `${curve.what}: ${curve.y} over ${curve.x}`, tabindex: 0 });
  for (const t of ticks(y0, y1)) {
    picture.append(svg("line", { class: t === 0 ? "zero" : "rule", x1: left, x2: width - right, y1: y(t), y2: y(t) }));
    picture.append(svg("text", { x: left - 8, y: y(t) + 4, "text-anchor": "end" }, number(+t.toPrecision(6))));
  }
  for (const t of ticks(x0, x1)) picture.append(svg("text", { x: x(t), y: height - bottom + 18, "text-anchor": "middle" }, number(+t.toPrecision(6))));
  picture.append(svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, curve.x));
  names.forEach((name, n) => {
    let path = "";
    let pen = "M";
    curve.lines[name].forEach((value, i) => {
      if (value === null) return (pen = "M");
      path += `${pen}${x(curve.at[i]).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
      if (curve.at.length <= 40) picture.append(coloured(svg("circle", { cx: x(curve.at[i]), cy: y(value), r: 2.6 }), "fill", n));
    });
    picture.append(coloured(svg("path", { d: path, ...(n >= LINES.length ? { "stroke-dasharray": "5 4" } : {}) }), "stroke", n));
  });
  const rule = svg("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
  picture.append(rule);
  const readout = el("p", { className: "readout number", role: "status" });
  let at = null;
  const show = (i) => {
    at = i;
    rule.setAttribute("visibility", i === null ? "hidden" : "visible");
    if (i === null) return readout.replaceChildren();
    rule.setAttribute("x1", x(curve.at[i]));
    rule.setAttribute("x2", x(curve.at[i]));
    readout.replaceChildren(`${curve.x} ${number(curve.at[i])}: `, names.map((name) => `${name} ${number(curve.lines[name][i])}`).join(" · "));
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const seen = ((event.clientX - box.left) / box.width) * width;
    show(curve.at.reduce((best, value, i) => (Math.abs(x(value) - seen) < Math.abs(x(curve.at[best]) - seen) ? i : best), 0));
  });
  picture.addEventListener("pointerleave", () => show(null));
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(Math.min(curve.at.length - 1, Math.max(0, (at ?? (step > 0 ? -1 : curve.at.length)) + step)));
  });
  const key = el("p", { className: "legend" }, ...names.map((name, n) => swatch(LINES[n % LINES.length].slice(2), name)));
  root.append(section(title(curve.name ?? "") || title(curve.what), `${curve.name ? `${title(curve.what)}. ` : ""}${title(curve.y)} over ${curve.x}.`, picture, readout, key));
};
