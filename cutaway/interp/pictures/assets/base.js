// What every picture is made of: elements, colours, the tip, the keys. A page is base.js, the pictures, and main.js.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const root = document.getElementById("page");
const redraw = []; // what has to be painted again when the window or the colour scheme changes
const pictures = {}; // by name, each draws a part of the data
const parts = (name) => data.parts.filter(([picture]) => picture === name).map(([, part]) => part);
const looked = parts("look")[0]; // of a page about one text, what was asked about it

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

const mark = () => el("p", { className: "mark" }, el("b", {}, "Cutaway"), " · a look inside");
const title = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const places = (most) => (most >= 100 ? 0 : most >= 3 ? 1 : most >= 0.3 ? 2 : 3); // decimals that tell numbers of this size apart
const number = (x) => (x === null || x === undefined ? "–" : Number.isInteger(x) ? count(x).replace("-", "−") : x !== 0 && Math.abs(x) < 1e-3 ? tiny(x) : String(+x.toPrecision(4)).replace("-", "−"));
const steps = (most) => [0, 0.25, 0.5, 0.75, 1].map((t) => [(t * most).toPrecision(2), t]);

// Orange above zero and blue below.
function signedTints(elements) {
  const draw = () => {
    const ramps = { plus: ramp("oranges"), minus: ramp("blues") };
    for (const [element, t] of elements) paint(element, ramps[t < 0 ? "minus" : "plus"](0.8 * Math.sqrt(Math.abs(t))));
  };
  redraw.push(draw);
  draw();
}

function swatch(name, what) {
  const colour = el("span", { className: "swatch" });
  colour.style.background = `var(--${name})`;
  return el("span", {}, colour, what);
}

function signedLegend(unit, most) {
  return el("p", { className: "legend" }, unit, swatch("plus", `above zero, up to ${most.toPrecision(2)}`), swatch("minus", "below zero"));
}

// --- a canvas of cells with names beside them --------------------------------------------------------

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const clipped = (text, most = 11) => {
  const spaced = text.replace(/^ +| +$/g, (s) => "·".repeat(s.length));
  return [...spaced].length > most ? `${[...spaced].slice(0, most - 1).join("")}…` : spaced;
};

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

// Cells of a grid as an image; where there are fewer pixels than cells, each is the strongest of those it stands for.
// `value(i, j)` is -1 … 1, or null where there is nothing.
function cellImage(rows, columns, value, height, width) {
  const canvas = el("canvas", { width, height });
  const context = canvas.getContext("2d");
  const made = context.createImageData(width, height);
  const strongest = new Float32Array(width * height).fill(NaN);
  for (let i = 0; i < rows; i++) {
    const y = Math.floor((i * height) / rows);
    for (let j = 0; j < columns; j++) {
      const v = value(i, j);
      if (v === null) continue;
      const at = y * width + Math.floor((j * width) / columns);
      if (!(Math.abs(strongest[at]) >= Math.abs(v))) strongest[at] = v;
    }
  }
  const ramps = { plus: ramp("oranges"), minus: ramp("blues") };
  strongest.forEach((v, at) => {
    if (!Number.isNaN(v)) made.data.set([...ramps[v < 0 || Object.is(v, -0) ? "minus" : "plus"](Math.sqrt(Math.abs(v))), 255], 4 * at);
  });
  context.putImageData(made, 0, 0);
  return canvas;
}

// A grid that answers to the pointer and the arrow keys. `diagonal` puts the columns' names on the diagonal.
// `describe(i, j)` fills the line below; `value` as in cellImage.
function grid(rows, columns, value, describe, { diagonal = false, most = 720, tallest = 26 } = {}) {
  const canvas = el("canvas", { className: "large", tabIndex: 0, role: "img" });
  const readout = el("p", { className: "readout number", role: "status" });
  const room = el("div", {}, canvas, readout);
  let cursor = null;
  let box = { left: 0, top: 0, cell: 1 };

  function draw() {
    const width = Math.max(240, room.clientWidth || 700);
    const widest = Math.max(rows.length, columns.length);
    const labels = (width - 100) / widest >= 9; // room for a line of text per row
    const font = Math.min(13, Math.max(9, (width - 150) / widest - 3));
    const measure = canvas.getContext("2d");
    measure.font = `${font}px ${style("--mono")}`;
    const wide = (names) => (labels ? Math.max(...names.map((name) => measure.measureText(clipped(name)).width)) + 8 : 0);
    const left = labels || rows.length <= 64 ? Math.max(...rows.map((name) => measure.measureText(clipped(name)).width)) + 8 : 0;
    const slant = labels ? wide(columns) * 0.72 + 6 : 8; // what slanting names take above and to the right
    let cell = Math.min(tallest, (Math.min(width, most) - left - slant) / columns.length);
    if (cell > 3) cell = Math.floor(cell);
    const [across, down] = [cell * columns.length, cell * rows.length];
    box = { left, top: slant, cell };
    const context = sized(canvas, left + across + slant, slant + down + 1);
    context.imageSmoothingEnabled = cell < 1;
    context.drawImage(cellImage(rows.length, columns.length, value, rows.length, columns.length), left, slant, across, down);
    if (cell >= 8) {
      context.fillStyle = style("--paper"); // hairlines between cells
      for (let i = 1; i < rows.length; i++) context.fillRect(left, slant + i * cell - 0.5, across, 1);
      for (let j = 1; j < columns.length; j++) context.fillRect(left + j * cell - 0.5, slant, 1, down);
    }
    context.font = `${font}px ${style("--mono")}`;
    context.textBaseline = "middle";
    const rowNames = left && cell >= 8 ? rows : [];
    rowNames.forEach((name, i) => {
      context.fillStyle = cursor && i === cursor.i ? style("--ink") : style("--muted");
      context.textAlign = "right";
      context.fillText(clipped(name), left - 6, slant + (i + 0.5) * cell);
    });
    (labels ? columns : []).forEach((name, j) => {
      context.save(); // on a diagonal, where the future leaves room; else above
      context.fillStyle = cursor && j === cursor.j ? style("--ink") : style("--muted");
      context.translate(left + (j + 0.5) * cell, slant + (diagonal ? j * cell : 0) - 3);
      context.rotate(-Math.PI / 4);
      context.textAlign = "left";
      context.fillText(clipped(name), 2, 0);
      context.restore();
    });
    if (cursor) {
      context.strokeStyle = style("--ink");
      context.lineWidth = 1;
      const [x, y] = [left + cursor.j * cell, slant + cursor.i * cell];
      context.strokeRect(x - 0.5, y - 0.5, Math.max(cell, 3) + 1, Math.max(cell, 3) + 1);
    }
  }

  function move(next) {
    cursor = next && value(next.i, next.j) !== null ? next : null;
    draw();
    readout.replaceChildren(...(cursor ? describe(cursor.i, cursor.j) : []));
  }

  canvas.addEventListener("pointermove", (event) => {
    const bounds = canvas.getBoundingClientRect();
    const i = Math.floor((event.clientY - bounds.top - box.top) / box.cell);
    const j = Math.floor((event.clientX - bounds.left - box.left) / box.cell);
    const inside = i >= 0 && i < rows.length && j >= 0 && j < columns.length;
    if (inside ? !cursor || cursor.i !== i || cursor.j !== j : cursor) move(inside ? { i, j } : null);
  });
  canvas.addEventListener("pointerleave", () => move(null));
  canvas.addEventListener("keydown", (event) => {
    const [di, dj] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (di === undefined) return;
    event.preventDefault();
    const i = Math.min(rows.length - 1, Math.max(0, cursor ? cursor.i + di : rows.length - 1));
    let j = Math.min(columns.length - 1, Math.max(0, cursor ? cursor.j + dj : 0));
    while (j > 0 && value(i, j) === null) j--;
    move({ i, j });
  });
  redraw.push(draw);
  requestAnimationFrame(draw); // when the page knows how wide it is
  return { room, canvas, draw, again: () => move(cursor) };
}
