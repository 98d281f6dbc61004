// --- the head of the page ------------------------------------------------------------------------

pictures.look = (look) => {
  const { model } = look;
  const facts = [model.kind, `${count(model.parameters)} parameters`, model.shape, `vocabulary ${count(model.vocabulary)}`];
  root.append(
    el("header", {},
      el("p", { className: "mark" }, el("b", {}, "Cutaway"), " · a look inside"),
      el("h1", {}, model.name),
      el("p", { className: "facts" }, facts.join(" · "))),
  );
};

pictures.next = (look) => {
  const { tokens } = parts("scores")[0];
  const list = el("div", { className: "next" });
  for (const [name, p] of look.likeliest) {
    const fill = el("div", { className: "fill" });
    fill.style.width = `${(100 * p) / look.likeliest[0][1]}%`;
    list.append(token(name), fill, el("span", { className: "number" }, share(p)));
  }
  const after = el("span", {}, "The likeliest tokens after ", token(tokens[look.position]), ` (position ${look.position}), and their probabilities.`);
  root.append(section("What comes next", after, list));
};

pictures.missing = (look) => {
  if (look.missing) root.append(section("What is not here", look.missing));
};
