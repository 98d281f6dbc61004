// --- the head of the page ------------------------------------------------------------------------

pictures.look = (look) => {
  const { model } = look;
  const facts = [model.kind, `${count(model.parameters)} parameters`, model.shape, `vocabulary ${count(model.vocabulary)}`];
  root.append(
    el("header", {},
      mark(),
      el("h1", {}, model.name),
      el("p", { className: "facts" }, facts.join(" · "))),
  );
};

pictures.next = () => {
  const { likeliest, tokens, position } = looked;
  if (!likeliest.length) return;
  const list = el("div", { className: "next" });
  for (const [name, p] of likeliest) {
    const fill = el("div", { className: "fill" });
    fill.style.width = `${(100 * p) / likeliest[0][1]}%`;
    list.append(token(name), fill, el("span", { className: "number" }, share(p)));
  }
  const where = position === null ? ["The likeliest answers for the text"] : [parts("scores").length ? "The likeliest tokens after " : "The likeliest answers at ", token(tokens[position]), ` (position ${position})`];
  root.append(section(parts("scores").length ? "What comes next" : "What it answers", el("span", {}, ...where, ", and their probabilities."), list));
};

pictures.missing = () => {
  if (looked.missing.length) root.append(section("What is not here", null, ...looked.missing.map((sentence) => el("p", {}, sentence))));
};
