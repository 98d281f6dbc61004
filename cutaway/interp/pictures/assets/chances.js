// --- what may come next, and what the options of drawing leave of it -------------------------------------

pictures.chances = (made) => {
  const off = { temperature: 1, top_k: null, top_p: 1, min_p: 0 };
  const narrowed = made.steps.some(({ name, value }) => value !== null && value !== off[name]);
  const most = Math.max(1e-12, ...made.candidates.map((one) => Math.max(one.share, one.left)));
  const bars = [];
  const bar = (value) => {
    const made = el("span", { className: "chance" });
    made.style.width = `${(100 * value) / most}%`;
    bars.push([made, 0.3 + (0.7 * value) / most]);
    return el("span", { className: "chances" }, made);
  };
  const line = (one) => el("tr", {},
    el("td", {}, token(one.token)), el("td", { className: "right" }, String(one.id)), el("td", {}, bar(narrowed ? one.left : one.share)),
    el("td", { className: "right" }, share(one.share)),
    ...(narrowed ? [el("td", { className: "right" }, one.dropped === null ? share(one.left) : `– ${one.dropped}`)] : []),
    el("td", { className: "right" }, one.logit.toFixed(3).replace("-", "−")));
  const heads = ["token", "id", "", "probability", ...(narrowed ? ["after all steps"] : []), "logit"];
  const last = el("tr", {}, el("td", {}, "all others"), el("td"), el("td"), el("td", { className: "right" }, share(made.others)),
    ...(narrowed ? [el("td", { className: "right" }, share(made.others_left))] : []), el("td"));
  const steps = made.steps.filter(({ value }) => value !== null)
    .map(({ name, value, kept }) => `${name} ${value} leaves ${count(kept)} tokens`).join(", ");
  root.append(section(
    title(made.name ?? "") || title(made.what),
    `${made.entropy.toFixed(2)} bits of surprise are to be expected. ${narrowed ? `${steps}; after that ${made.entropy_left.toFixed(2)} bits.` : ""}`,
    el("div", { className: "scroll" }, el("table", { className: "plain" },
      el("thead", {}, el("tr", {}, ...heads.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, ...made.candidates.map(line), last))),
    made.came ? el("p", { className: "note" }, "In the text came ", token(made.came.token), `, the ${made.came.rank}. of all, with ${share(made.came.share)}.`) : null,
  ));
  tints(bars, "oranges");
};
