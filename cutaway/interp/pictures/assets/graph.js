// --- nodes and edges, and trees --------------------------------------------------------------------------

const MOST_EDGES = 160;

pictures.graph = (graph) => {
  const edges = [...graph.edges].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight)).slice(0, MOST_EDGES);
  const kept = new Set(edges.flatMap((edge) => [edge.source, edge.target]));
  const nodes = graph.nodes.filter((node) => kept.has(node.name));
  const depths = [...new Set(nodes.map((node) => node.depth))].sort((a, b) => a - b);
  const [across, down, margin] = [Math.max(760, 96 * Math.max(...depths.map((d) => nodes.filter((n) => n.depth === d).length))), 74, 40];
  const height = margin * 2 + down * Math.max(1, depths.length - 1);
  const at = {};
  depths.forEach((depth, level) => {
    const line = nodes.filter((node) => node.depth === depth);
    line.forEach((node, i) => (at[node.name] = [((i + 0.5) / line.length) * across, height - margin - level * down]));
  });
  const most = Math.max(1e-300, ...edges.map((edge) => Math.abs(edge.weight)));
  const picture = svg("svg", { viewBox: `0 0 ${across} ${height}`, class: "graph", role: "img", "aria-label": `${graph.what}: ${nodes.length} nodes, ${edges.length} edges` });
  picture.style.minWidth = `${across}px`;
  const drawn = edges.map((edge) => {
    const [[a, b], [c, d]] = [at[edge.source], at[edge.target]];
    const path = svg("path", { d: `M${a} ${b - 9}C${a} ${(b + d) / 2} ${c} ${(b + d) / 2} ${c} ${d + 9}`, class: edge.weight < 0 ? "minus" : "plus" });
    path.style.strokeWidth = `${0.5 + 4 * Math.sqrt(Math.abs(edge.weight) / most)}px`;
    picture.append(path);
    return [edge, path];
  });
  for (const node of nodes) {
    const [a, b] = at[node.name];
    const made = svg("g", { class: "node", tabindex: 0 }, svg("text", { x: a, y: b + 4, "text-anchor": "middle" }, clipped(node.label || node.name, 14)));
    tipped(made, () => {
      const near = drawn.filter(([edge]) => edge.target === node.name || edge.source === node.name).slice(0, 10);
      return [el("div", {}, node.name, " ", token(node.label)), row(graph.unit, number(node.value)),
        ...near.map(([{ source, target, weight }]) => row(target === node.name ? `← ${source}` : `→ ${target}`, signed(weight)))];
    });
    const light = (on) => drawn.forEach(([edge, path]) => path.classList.toggle("faint", on && edge.source !== node.name && edge.target !== node.name));
    for (const [event, on] of [["pointerenter", true], ["focus", true], ["pointerleave", false], ["blur", false]]) made.addEventListener(event, () => light(on));
    picture.append(made);
  }
  const more = graph.edges.length > edges.length ? ` The ${MOST_EDGES} strongest of ${count(graph.edges.length)} edges.` : "";
  root.append(section(title(graph.name ?? "") || title(graph.what), `From below to above; the wider an edge, the larger its weight.${more}`,
    el("div", { className: "scroll" }, picture), el("p", { className: "legend" }, graph.unit, swatch("plus", "raises"), swatch("minus", "lowers"))));
};

pictures.tree = (tree) => {
  const branch = (node, depth) => {
    const bar = el("span", { className: "bar" }, el("span", {}));
    bar.firstChild.style.width = `${100 * node.total}%`;
    bar.firstChild.style.background = "var(--minus)";
    const line = [el("span", { className: "name" }, token(node.label)), bar, el("span", { className: "value" }, share(node.share)), el("span", { className: "value" }, share(node.total))];
    if (!node.branches.length) return el("li", {}, el("div", { className: "branch" }, ...line));
    const inner = el("details", { open: depth < 3 }, el("summary", { className: "branch" }, ...line), el("ul", { className: "terms opened" }, ...node.branches.map((next) => branch(next, depth + 1))));
    return el("li", {}, inner);
  };
  root.append(section(title(tree.name ?? "") || title(tree.what), "Each branch with its share of the one before it, and of the whole.", el("ul", { className: "terms" }, branch(tree.root, 0))));
};
