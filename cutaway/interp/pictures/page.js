// Draws a page from the data it holds. Every part of the data has a picture of the same name at the end of this file.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const root = document.getElementById("page");
const redraw = []; // what has to be painted again when the window or the colour scheme changes

// --- small things -------------------------------------------------------------------------------

function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function signed(x, digits = 3) {
  const size = Math.abs(x).toFixed(digits);
  return (+size === 0 ? "" : x < 0 ? "−" : "+") + size;
}
const share = (p) => (p >= 0.1 ? (100 * p).toFixed(0) : p >= 0.01 ? (100 * p).toFixed(1) : (100 * p).toFixed(2)) + " %";
const tiny = (x) => (x === 0 ? "0" : x.toExponential(1).replace("-", "−"));
const count = (n) => n.toLocaleString("en");

// A token with its spaces, line breaks and stray bytes visible but quiet.
function token(text, more = "") {
  const made = el("span", { className: `token ${more}` });
  for (const part of text.split(/(^ +| +$|\\n|\\t|\\r|\\x[0-9a-f]{2})/)) {
    if (/^ +$/.test(part)) made.append(el("i", {}, "·".repeat(part.length)));
    else if (/^\\/.test(part)) made.append(el("i", {}, part));
    else if (part) made.append(part);
  }
  return made;
}

function section(title, about, ...children) {
  return el("section", {}, el("h2", {}, title), about ? el("p", { className: "about" }, about) : null, ...children);
}

// --- colours: ramps from the style sheet, so that they follow the colour scheme -------------------

function ramp(name) {
  const stops = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim().split(/\s+/)
    .map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  return (t) => {
    const at = Math.min(0.9999, Math.max(0, t)) * (stops.length - 1);
    const [low, high] = [stops[Math.floor(at)], stops[Math.floor(at) + 1]];
    return low.map((value, i) => Math.round(value + (high[i] - value) * (at % 1)));
  };
}

function paint(element, [r, g, b]) {
  const light = (c) => ((c /= 255) <= 0.04 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  element.style.background = `rgb(${r} ${g} ${b})`;
  element.style.color = luminance > 0.179 ? "#111" : "#fff"; // whichever has the higher contrast
}

// Colours an element now and whenever the scheme changes.
function tint(element, name, t) {
  const draw = () => paint(element, ramp(name)(t));
  redraw.push(draw);
  draw();
}

// Many elements at once, so that the ramp is read only once.
function tints(elements, name) {
  const draw = () => {
    const colours = ramp(name);
    for (const [element, t] of elements) paint(element, colours(t));
  };
  redraw.push(draw);
  draw();
}

function legend(name, what, steps, ...more) {
  const scale = el("span", { className: "scale" });
  for (const [label, t] of steps) {
    const step = el("span", {}, label);
    tint(step, name, t);
    scale.append(step);
  }
  return el("p", { className: "legend" }, what, scale, ...more);
}

// --- the tip beside the pointer or the focused element ---------------------------------------------

const tip = document.getElementById("tip");

function place(x, y) {
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? Math.max(8, y - height - 12) : y + 18}px`;
}

function tipped(element, content) {
  const show = (x, y) => {
    tip.replaceChildren(...content());
    tip.hidden = false;
    place(x, y);
  };
  const hide = () => (tip.hidden = true);
  element.addEventListener("pointerenter", (event) => show(event.clientX, event.clientY));
  element.addEventListener("pointermove", (event) => place(event.clientX, event.clientY));
  element.addEventListener("pointerleave", hide);
  element.addEventListener("focus", () => {
    const box = element.getBoundingClientRect();
    show(box.left, box.bottom - 12);
  });
  element.addEventListener("blur", hide);
}

addEventListener("keydown", (event) => event.key === "Escape" && (tip.hidden = true));

const row = (name, value) => el("div", { className: "row" }, name, el("span", {}, value));

// One stop of the tab key for many elements; the arrow keys move among them.
function roving(elements, columns, start) {
  elements.forEach((element, i) => {
    element.tabIndex = i === start ? 0 : -1;
    element.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
      const next = step && elements[i + step];
      if (!next) return;
      event.preventDefault();
      element.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  });
}

// --- the head of the page ------------------------------------------------------------------------

function drawLook(look) {
  const { model } = look;
  const facts = [model.kind, `${count(model.parameters)} parameters`, model.shape, `vocabulary ${count(model.vocabulary)}`];
  root.append(
    el("header", {},
      el("p", { className: "mark" }, el("b", {}, "Cutaway"), " · a look inside"),
      el("h1", {}, model.name),
      el("p", { className: "facts" }, facts.join(" · "))),
  );
}

function drawNext(look, tokens) {
  const list = el("div", { className: "next" });
  for (const [name, p] of look.likeliest) {
    const fill = el("div", { className: "fill" });
    fill.style.width = `${(100 * p) / look.likeliest[0][1]}%`;
    list.append(token(name), fill, el("span", { className: "number" }, share(p)));
  }
  const after = el("span", {}, "The likeliest tokens after ", token(tokens[look.position]), ` (position ${look.position}), and their probabilities.`);
  root.append(section("What comes next", after, list));
}

// --- tokens with a number each --------------------------------------------------------------------

const MOST_BITS = 12;

function drawScores(scores) {
  const chips = el("div", { className: "chips" });
  const each = scores.tokens.map((text, i) => {
    const score = scores.scores[i];
    const chip = el("span", { className: "chip" }, token(text), el("span", { className: "bits" }, score === null ? "–" : score.toFixed(1)));
    chip.classList.toggle("chosen", data.look?.position === i);
    tipped(chip, () => [
      token(text), row("position", i), row("id", scores.ids[i]),
      ...(score === null ? [row(scores.what, "none, as nothing stands before it")] : [row(scores.what, `${score.toFixed(3)} ${scores.unit}`), row("probability", share(2 ** -score))]),
    ]);
    chips.append(chip);
    if (text.endsWith("\\n")) chips.append(el("br"));
    return chip;
  });
  tints(each.flatMap((chip, i) => (scores.scores[i] === null ? [] : [[chip.firstChild, scores.scores[i] / MOST_BITS]])), "oranges");
  roving(each, 12, 0);
  const mean = scores.mean === null ? null : el("span", {}, `${scores.mean.toFixed(2)} ${scores.unit} on average`);
  const chosen = data.look ? el("span", {}, "outlined: the ledger opens what comes after it") : null;
  root.append(section(
    "The text as the model sees it",
    `Under each token its ${scores.what} in ${scores.unit}: how unexpected it was. Each bit halves the probability that the model had given it.`,
    chips,
    legend("oranges", scores.unit, [["0", 0], ["3", 0.25], ["6", 0.5], ["9", 0.75], ["≥ 12", 1]], mean, chosen),
  ));
}

// --- attention -------------------------------------------------------------------------------------

const HABITS = { previous: "prev", first: "first", itself: "self" };

function drawAttention(attention) {
  const { layers, heads, first, tokens } = attention;
  const names = tokens.slice(first);
  const size = names.length;
  const triangle = (size * (size + 1)) / 2;
  const bytes = Uint8Array.from(atob(attention.steps), (c) => c.charCodeAt(0));
  const steps = new DataView(bytes.buffer);
  const weight = (layer, head, i, j) => steps.getUint16(2 * ((layer * heads + head) * triangle + (i * (i + 1)) / 2 + j), true) / 65535;

  let [layer, head] = attention.shown;
  let cursor = null;
  const large = el("canvas", { className: "large", tabIndex: 0, role: "img" });
  const title = el("p", {});
  const readout = el("p", { className: "readout number", role: "status" });
  const thumbs = [];

  const room = el("div", {}, title, large, readout);
  const table = el("table", {});
  table.append(el("tr", {}, el("th", {}, "head"), ...Array.from({ length: heads }, (_, h) => el("th", {}, `${h}`))));
  for (let l = 0; l < layers; l++) {
    const line = el("tr", {}, el("th", {}, `layer ${l}`));
    for (let h = 0; h < heads; h++) {
      const [where, much] = attention.habits[l][h];
      const canvas = el("canvas", {});
      const label = `layer ${l} head ${h}, ${much > 0.005 ? `${share(much)} on ${where === "previous" ? "the token before" : where === "first" ? "the first token" : where === "itself" ? "the token itself" : "other tokens"}` : ""}`;
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

  // An image of one head, a pixel per cell; of fewer pixels, each is the strongest of those it stands for.
  function image(l, h, pixels) {
    const canvas = el("canvas", { width: pixels, height: pixels });
    const context = canvas.getContext("2d");
    const made = context.createImageData(pixels, pixels);
    const strongest = new Float32Array(pixels * pixels).fill(-1);
    for (let i = 0; i < size; i++) {
      const y = Math.floor((i * pixels) / size);
      for (let j = 0; j <= i; j++) {
        const at = y * pixels + Math.floor((j * pixels) / size);
        strongest[at] = Math.max(strongest[at], weight(l, h, i, j));
      }
    }
    const colours = ramp("blues");
    strongest.forEach((p, at) => {
      if (p >= 0) made.data.set([...colours(Math.sqrt(p)), 255], 4 * at);
    });
    context.putImageData(made, 0, 0);
    return canvas;
  }

  function sized(canvas, width, height) {
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = false;
    return context;
  }

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const shown = (text) => {
    const spaced = text.replace(/^ +| +$/g, (s) => "·".repeat(s.length));
    return [...spaced].length > 11 ? `${[...spaced].slice(0, 10).join("")}…` : spaced;
  };
  let grid = { left: 0, top: 0, cell: 1 };

  function drawLarge() {
    const width = Math.max(240, room.clientWidth);
    const labels = (width - 100) / size >= 9; // room for a line of text per row
    const font = Math.min(13, Math.max(9, (width - 150) / size - 3));
    const measure = large.getContext("2d");
    measure.font = `${font}px ${style("--mono")}`;
    const longest = labels ? Math.max(...names.map((name) => measure.measureText(shown(name)).width)) + 8 : 0;
    const slant = labels ? longest * 0.72 + 6 : 8; // what the labels on the diagonal take above and to the right
    let cell = Math.min(26, (Math.min(width, 720) - longest - slant) / size);
    if (cell > 3) cell = Math.floor(cell);
    grid = { left: longest, top: slant, cell };
    const extent = cell * size;
    const context = sized(large, longest + extent + slant, slant + extent + 1);
    context.imageSmoothingEnabled = cell < 1;
    context.drawImage(image(layer, head, size), longest, slant, extent, extent);
    if (cell >= 8) {
      context.fillStyle = style("--paper"); // hairlines between cells
      for (let i = 1; i < size; i++) {
        context.fillRect(longest, slant + i * cell - 0.5, extent, 1);
        context.fillRect(longest + i * cell - 0.5, slant, 1, extent);
      }
    }
    if (labels) {
      context.font = `${font}px ${style("--mono")}`;
      context.textBaseline = "middle";
      names.forEach((name, i) => {
        const seen = cursor && (i === cursor.i || i === cursor.j);
        context.fillStyle = cursor && i === cursor.i ? style("--ink") : style("--muted");
        context.textAlign = "right";
        context.fillText(shown(name), longest - 6, slant + (i + 0.5) * cell);
        context.save(); // the column's name stands on the diagonal, where the future leaves room
        context.fillStyle = seen && i === cursor.j ? style("--ink") : style("--muted");
        context.translate(longest + (i + 0.5) * cell, slant + i * cell - 3);
        context.rotate(-Math.PI / 4);
        context.textAlign = "left";
        context.fillText(shown(name), 2, 0);
        context.restore();
      });
    }
    if (cursor) {
      context.strokeStyle = style("--ink");
      context.lineWidth = 1;
      const [x, y] = [longest + cursor.j * cell, slant + cursor.i * cell];
      context.strokeRect(x - 0.5, y - 0.5, Math.max(cell, 3) + 1, Math.max(cell, 3) + 1);
    }
    large.setAttribute("aria-label", `attention of layer ${layer}, head ${head}: ${size} tokens; the arrow keys move over the cells`);
  }

  function move(next) {
    cursor = next;
    drawLarge();
    if (!next) return readout.replaceChildren();
    readout.replaceChildren(
      token(names[next.i]), ` (${first + next.i}) looks at `, token(names[next.j]), ` (${first + next.j}) with `,
      el("b", {}, share(weight(layer, head, next.i, next.j))),
    );
  }

  function choose(l, h) {
    [layer, head] = [l, h];
    title.textContent = `Layer ${l}, head ${h}`;
    for (const thumb of thumbs) thumb.button.setAttribute("aria-pressed", thumb.l === l && thumb.h === h);
    move(cursor);
  }

  large.addEventListener("pointermove", (event) => {
    const box = large.getBoundingClientRect();
    const i = Math.floor((event.clientY - box.top - grid.top) / grid.cell);
    const j = Math.floor((event.clientX - box.left - grid.left) / grid.cell);
    const inside = i >= 0 && i < size && j >= 0 && j <= i;
    if (inside ? !cursor || cursor.i !== i || cursor.j !== j : cursor) move(inside ? { i, j } : null);
  });
  large.addEventListener("pointerleave", () => move(null));
  large.addEventListener("keydown", (event) => {
    const [di, dj] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (di === undefined) return;
    event.preventDefault();
    const i = Math.min(size - 1, Math.max(0, cursor ? cursor.i + di : size - 1));
    move({ i, j: Math.min(i, Math.max(0, cursor ? cursor.j + dj : 0)) });
  });

  root.append(section(
    "Attention",
    "How much each token (row) takes from each earlier one (column, named on the diagonal). The rows sum to 100 %. Choose a head on the small pictures.",
    el("div", { className: "heads" }, room, el("div", { className: "thumbs" }, table)),
    first ? el("p", { className: "note" }, `The last ${size} of ${tokens.length} tokens.`) : null,
    legend("blues", "share of the row", [["0", 0], ["1 %", 0.1], ["10 %", Math.sqrt(0.1)], ["50 %", Math.sqrt(0.5)], ["100 %", 1]],
      el("span", {}, "under a small picture: the mean share on the previous token, the first, or itself, where it is 40 % or more")),
  ));
  const drawThumbs = () => {
    for (const { l, h, canvas } of thumbs) {
      const context = sized(canvas, side, side);
      context.drawImage(image(l, h, Math.min(size, canvas.width)), 0, 0, side, side);
    }
  };
  redraw.push(drawThumbs, drawLarge);
  drawThumbs();
  choose(layer, head);
}

// --- the logit lens ---------------------------------------------------------------------------------

const MOST_COLUMNS = 512;

function drawLens(lens) {
  const first = Math.max(0, lens.tokens.length - MOST_COLUMNS);
  const columns = lens.tokens.slice(first);
  const heading = columns.map((text, i) => {
    const made = el("th", { scope: "col" }, token(text));
    made.classList.toggle("chosen", data.look?.position === first + i);
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
    "Logit lens",
    "What each layer would say next, if the model ended there: its likeliest token after each token of the text. The last row is the model's own output.",
    scroll,
    legend("blues", "probability", [["0", 0], ["25 %", 0.25], ["50 %", 0.5], ["75 %", 0.75], ["100 %", 1]],
      el("span", {}, "underlined: the token that did come next"),
      first ? el("span", {}, `the last ${columns.length} of ${lens.tokens.length} tokens`) : null),
  ));
  const chosen = heading[(data.look?.position ?? columns.length + first - 1) - first];
  if (chosen) scroll.scrollLeft = chosen.offsetLeft - scroll.clientWidth + chosen.offsetWidth + 40;
}

// --- the ledger --------------------------------------------------------------------------------------

const SHOWN = 12;

function nameOf({ name, label = "" }) {
  const parts = name.split(".");
  if (parts[0] === "others") return [label];
  if (parts[0] === "layers") return [["layer", ...parts.slice(1)].join(" ")];
  if (parts[0] === "source" || parts[0] === "step") return [`${parts[1]} `, token(label), parts[2] ? " (edited)" : ""];
  return [parts.join(" "), ...(label ? [" ", token(label)] : [])];
}

// One level of a ledger as a list; `inner` levels have a line that says what they are.
function level(ledger, inner) {
  const list = el("ul", { className: "terms" });
  let bySize = true;
  let all = false;
  let [low, percent] = [0, 1]; // the left end of the bars, and how much of their room one logit takes

  // A term with its bar; `act` is what a click does, if it is not a leaf.
  function item(term, act) {
    const zero = el("b"); // one zero for all bars of a level
    zero.style.left = `${-low * percent}%`;
    const fill = el("span");
    fill.style.width = `${Math.abs(term.value) * percent}%`;
    fill.style.left = `${(Math.min(0, term.value) - low) * percent}%`;
    fill.style.background = term.value < 0 ? "var(--minus)" : "var(--plus)";
    const line = el(act ? "button" : "div", { className: `term ${term.name === "others" ? "rest" : ""}` },
      el("span", { className: "name" }, ...nameOf(term)),
      el("span", { className: "bar" }, fill, zero),
      el("span", { className: "value" }, signed(term.value)));
    const made = el("li", { tabIndex: -1 }, line);
    made.dataset.name = term.name;
    if (act) {
      line.type = "button";
      line.setAttribute("aria-expanded", "false");
      line.addEventListener("click", () => act(made, line));
    }
    return made;
  }

  function unfold(term) {
    return (made, line) => {
      const open = line.getAttribute("aria-expanded") !== "true";
      line.setAttribute("aria-expanded", open);
      if (open) made.append(level(term.opened, true));
      else made.lastChild.remove();
    };
  }

  function fill() {
    const terms = [...ledger.terms];
    if (bySize) terms.sort((a, b) => (a.name === "others") - (b.name === "others") || Math.abs(b.value) - Math.abs(a.value));
    const cut = all || terms.length <= SHOWN + 1 ? terms.length : SHOWN;
    const rest = terms.slice(cut).reduce((sum, term) => sum + term.value, 0);
    const values = [0, rest, ...terms.slice(0, cut).map((term) => term.value)];
    low = Math.min(...values);
    percent = 100 / (Math.max(...values) - low || 1);
    list.replaceChildren(...terms.slice(0, cut).map((term) => item(term, term.opened && unfold(term))));
    if (cut === terms.length) return;
    list.append(item({ name: "others", label: `show ${terms.length - cut} more`, value: rest }, () => { all = true; fill(); }));
  }
  fill();

  const total = ledger.terms.reduce((sum, term) => sum + term.value, 0);
  const sum = el("div", { className: "sum" },
    el("span", {}, "sum ", el("b", {}, signed(total, 4))),
    el("span", {}, inner ? "the term " : "the model's logit ", el("b", {}, signed(ledger.total, 4))),
    el("span", {}, "error ", el("b", {}, tiny(ledger.error))));
  const choices = [["largest first", true], ["in the order of computation", false]].map(([name, value]) => {
    const button = el("button", { type: "button", "aria-pressed": value === bySize }, name);
    button.addEventListener("click", () => {
      bySize = value;
      choices.forEach((other) => other.setAttribute("aria-pressed", other === button));
      fill();
    });
    return button;
  });
  const made = el("div", {}, inner ? el("p", { className: "inner" }, ledger.what) : el("div", { className: "order" }, ...choices), list, sum);
  made.reveal = (name) => {
    all = true;
    fill();
    const found = [...list.children].find((child) => child.dataset.name === name);
    found.firstChild.click();
    found.scrollIntoView({ block: "center" });
    found.firstChild.focus();
  };
  if (inner) made.className = "opened";
  return made;
}

// The heads and MLPs of a decoder, layer by layer, in colours around zero.
function map(ledger, reveal) {
  const parts = ledger.terms.flatMap((term) => {
    const found = term.name.match(/^layers\.(\d+)\.(?:head\.(\d+)|(mlp))$/);
    return found ? [{ term, layer: +found[1], column: found[2] ?? "MLP" }] : [];
  });
  if (!parts.length) return null;
  const columns = [...new Set(parts.map(({ column }) => column))];
  columns.sort((a, b) => (a === "MLP") - (b === "MLP") || a - b);
  const most = Math.max(...parts.map(({ term }) => Math.abs(term.value))) || 1;
  const table = el("table", { className: "map" }, el("tr", {}, el("th", {}, "head"), ...columns.map((name) => el("th", { scope: "col" }, name))));
  const cells = [];
  for (let layer = 0; layer <= Math.max(...parts.map((part) => part.layer)); layer++) {
    const line = el("tr", {}, el("th", { scope: "row" }, `layer ${layer}`));
    for (const column of columns) {
      const { term } = parts.find((part) => part.layer === layer && part.column === column);
      const button = el("button", { type: "button", "aria-label": `layer ${layer} ${column === "MLP" ? column : `head ${column}`}: ${signed(term.value)}` }, signed(term.value, 2));
      button.addEventListener("click", () => reveal(term.name));
      cells.push([button, term.value / most]);
      line.append(el("td", {}, button));
    }
    table.append(line);
  }
  const draw = () => {
    const ramps = { plus: ramp("oranges"), minus: ramp("blues") };
    for (const [button, t] of cells) paint(button, ramps[t < 0 ? "minus" : "plus"](0.8 * Math.sqrt(Math.abs(t))));
  };
  redraw.push(draw);
  draw();
  return el("div", { className: "scroll" }, table);
}

function drawLedger(ledger) {
  const tree = level(ledger, false);
  const swatch = (name, what) => {
    const colour = el("span", { className: "swatch" });
    colour.style.background = `var(--${name})`;
    return el("span", {}, colour, what);
  };
  const [what, ...quoted] = ledger.what.split(/[“”]/);
  const named = [what, ...quoted.map((part, i) => (i % 2 ? part : token(part)))];
  root.append(section(
    "Ledger",
    el("span", {}, "The ", ...named, ", as the sum of what each part of the model wrote. A term with a ▸ opens: a head into the tokens it read, an MLP into its neurons, a recurrent unit into the steps that wrote it."),
    map(ledger, tree.reveal),
    tree,
    el("p", { className: "legend" }, "logits (natural units)", swatch("plus", "raises the logit"), swatch("minus", "lowers it")),
  ));
}

// --- what it can be checked by ------------------------------------------------------------------------

function drawReceipt(receipt, error) {
  const facts = [
    `recorded run − plain run: ${receipt.difference === 0 ? "0, bit for bit" : tiny(receipt.difference)}`,
    error === undefined ? null : `ledger error ${tiny(error)}`,
    `${(receipt.bytes / 2 ** 20).toFixed(1)} MB recorded`, `${receipt.milliseconds.toFixed(0)} ms`,
    receipt.dtype, receipt.seed === null ? null : `seed ${receipt.seed}`, `Cutaway ${data.version}`,
  ];
  root.append(el("footer", { className: "receipt" }, ...facts.filter(Boolean).map((fact) => el("span", {}, fact))));
}

if (data.look) drawLook(data.look);
if (data.scores) drawScores(data.scores);
if (data.look) drawNext(data.look, data.scores.tokens);
if (data.ledger) drawLedger(data.ledger);
if (data.attention) drawAttention(data.attention);
if (data.lens) drawLens(data.lens);
if (data.look?.missing) root.append(section("What is not here", data.look.missing));
const receipt = data.look?.receipt ?? data.ledger?.receipt;
if (receipt) drawReceipt(receipt, data.ledger?.error);

const again = () => redraw.forEach((draw) => draw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) requestAnimationFrame(again);
  width = innerWidth;
});
