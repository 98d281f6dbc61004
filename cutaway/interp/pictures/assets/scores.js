// --- tokens with a number each --------------------------------------------------------------------

const MOST_BITS = 12;

// Tokens as chips with their numbers below; and the largest number.
function chipsOf(scores) {
  const known = scores.scores.filter((score) => score !== null);
  const bits = scores.unit === "bits" && !scores.signed;
  const most = bits ? MOST_BITS : Math.max(1e-12, ...known.map(Math.abs));
  const chips = el("div", { className: "chips" });
  const each = scores.tokens.map((text, i) => {
    const score = scores.scores[i];
    const shown = score === null ? "–" : scores.signed ? signed(score, places(most)) : score.toFixed(places(most));
    const chip = el("span", { className: "chip" }, token(text), el("span", { className: "bits" }, shown));
    chip.classList.toggle("chosen", looked?.position === i);
    tipped(chip, () => [
      token(text), row("position", i), ...(scores.ids[i] === undefined ? [] : [row("id", scores.ids[i])]),
      row(scores.what, score === null ? "none" : `${score.toPrecision(4).replace("-", "−")} ${scores.unit}`),
      ...(scores.what === "surprisal" && score !== null ? [row("probability", share(2 ** -score))] : []),
    ]);
    chips.append(chip);
    if (text.endsWith("\\n")) chips.append(el("br"));
    return chip;
  });
  const tinted = each.flatMap((chip, i) => (scores.scores[i] === null ? [] : [[chip.firstChild, scores.scores[i] / most]]));
  if (scores.signed) signedTints(tinted);
  else tints(tinted, "oranges");
  roving(each, 12, 0);
  return [chips, most];
}

pictures.scores = (scores) => {
  const bits = scores.unit === "bits" && !scores.signed;
  const [chips, most] = chipsOf(scores);
  const mean = scores.mean === null ? null : el("span", {}, `${scores.mean.toPrecision(3).replace("-", "−")} ${scores.unit} on average`);
  const chosen = looked ? el("span", {}, "outlined: the ledger opens what comes after it") : null;
  const about = scores.what === "surprisal"
    ? "Under each token its surprisal in bits: how unexpected it was. Each bit halves the probability that the model had given it."
    : `Under each its ${scores.what}, in ${scores.unit}.`;
  root.append(section(
    title(scores.name ?? "") || (looked ? "The text as the model sees it" : title(scores.what)), about, chips,
    scores.signed ? signedLegend(scores.unit, most) : legend("oranges", scores.unit, bits ? [["0", 0], ["3", 0.25], ["6", 0.5], ["9", 0.75], ["≥ 12", 1]] : steps(most), mean, chosen),
  ));
};
