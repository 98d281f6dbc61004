// --- the ledger --------------------------------------------------------------------------------------

const SHOWN = 12;

function nameOf({ name, label = "" }) {
  const edited = name.endsWith(".edit");
  const parts = name.replace(/\.edit$/, "").replace("layers.", "layer.").replace("cross_head", "cross head").split(".");
  if (parts[0] === "others") return [label];
  const labelled = edited ? [" (edited)"] : label ? [" ", token(label)] : [];
  if (parts[0] === "source" || parts[0] === "step") parts.shift();
  return [parts.join(" "), ...labelled];
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
    el("span", {}, inner ? "the term " : "the model's own ", el("b", {}, signed(ledger.total, 4))),
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
  signedTints(cells);
  return el("div", { className: "scroll" }, table);
}

pictures.ledger = (ledger) => {
  const tree = level(ledger, false);
  const [what, ...quoted] = ledger.what.split(/[“”]/);
  const named = [what, ...quoted.map((part, i) => (i % 2 ? part : token(part)))];
  root.append(section(
    "Ledger",
    el("span", {}, "The ", ...named, ", as the sum of what each part of the model wrote. A term with a ▸ opens: a head into the tokens it read, an MLP into its neurons, a recurrent unit into the steps that wrote it."),
    map(ledger, tree.reveal),
    tree,
    el("p", { className: "legend" }, ledger.unit === "logits" ? "logits (natural units)" : ledger.unit, swatch("plus", "raises it"), swatch("minus", "lowers it")),
  ));
};
