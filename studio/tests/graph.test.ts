import { describe, expect, it } from "vitest";
import { grouped, kindOf, laid, positionOf, shortOf, type GraphEdge, type GraphNode } from "../src/pictures/graph";

const node = (name: string, depth: number, value = 1): GraphNode => ({ name, label: `said ${name}`, value, depth });
const nodes = [
  node("embed@0", 0),
  node("embed@4", 0),
  node("biases", 0),
  node("layers.0.feature.7@4", 1, 0.5),
  node("layers.0.neuron.31@4", 1, -3),
  node("layers.1.error@0", 2),
  node("logit.0", 3),
];
const edges: GraphEdge[] = [
  { source: "embed@0", target: "layers.0.feature.7@4", weight: 2 },
  { source: "embed@0", target: "layers.0.neuron.31@4", weight: -0.5 },
  { source: "layers.0.feature.7@4", target: "logit.0", weight: 1 },
  { source: "layers.0.neuron.31@4", target: "logit.0", weight: 0.25 },
  { source: "layers.0.feature.7@4", target: "layers.0.neuron.31@4", weight: 9 },
];

describe("names", () => {
  it("say what a node is and where it stands", () => {
    expect(nodes.map(({ name }) => kindOf(name))).toEqual([
      "embed", "embed", "bias", "feature", "neuron", "error", "logit",
    ]); // prettier-ignore
    expect(kindOf("layers.2.head.1")).toBe("head");
    expect(kindOf("layers.2.mlp")).toBe("mlp");
    expect(kindOf("embed")).toBe("embed");
    expect(positionOf("embed@12")).toBe(12);
    expect(positionOf("logit.0")).toBeNull();
    expect(shortOf(node("layers.2.head.1", 1))).toBe("2.1");
    expect(shortOf(node("layers.0.neuron.31@4", 1))).toBe("31");
  });
});

describe("layout", () => {
  const made = laid(nodes, ["a", "b", "c", "d", "e"], 600);
  const at = (name: string) => made.nodes.find((one) => one.node.name === name)!;

  it("puts depth upwards and positions side by side", () => {
    expect(made.nodes).toHaveLength(nodes.length);
    expect(at("embed@0").y).toBeGreaterThan(at("layers.0.feature.7@4").y);
    expect(at("layers.0.feature.7@4").y).toBeGreaterThan(at("logit.0").y);
    expect(at("embed@0").x).toBeLessThan(at("embed@4").x);
    expect(made.columns.map(({ name }) => name)).toEqual(["a", "e"]);
  });

  it("stands the largest first, and what has no position in the last column", () => {
    expect(at("layers.0.neuron.31@4").x).toBeLessThan(at("layers.0.feature.7@4").x);
    expect(at("logit.0").x).toBeCloseTo(made.columns[1]!.x);
  });

  it("keeps nodes apart and inside, however many", () => {
    const many = laid(
      Array.from({ length: 40 }, (_, i) => node(`layers.0.neuron.${i}@${i % 3}`, 1)),
      [],
      390,
    );
    const places = many.nodes.map(({ x, y }) => `${Math.round(x)} ${Math.round(y)}`);
    expect(new Set(places).size).toBe(40);
    for (const { x, y } of many.nodes) {
      expect(x).toBeGreaterThan(0);
      expect(x).toBeLessThan(many.width);
      expect(y).toBeGreaterThan(0);
      expect(y).toBeLessThan(many.height);
    }
  });

  it("draws nothing of nothing", () => {
    expect(laid([], [], 400).nodes).toEqual([]);
  });
});

describe("groups", () => {
  const made = grouped(nodes, edges, [{ name: "group 1", members: ["layers.0.feature.7@4", "layers.0.neuron.31@4"] }]);

  it("sum what leads in and out, and keep what is inside to themselves", () => {
    expect(made.nodes.map(({ name }) => name)).toContain("group 1@4");
    expect(made.nodes).toHaveLength(nodes.length - 1);
    expect(made.edges).toEqual([
      { source: "embed@0", target: "group 1@4", weight: 1.5 },
      { source: "group 1@4", target: "logit.0", weight: 1.25 },
    ]);
  });

  it("leave the graph as it is where there are none", () => {
    expect(grouped(nodes, edges, []).edges).toBe(edges);
  });

  it("keep what feeds queries, keys and values apart", () => {
    const heads: GraphEdge[] = ["q", "k"].map((reads) => ({
      source: "embed",
      target: "layers.0.head.1",
      weight: 1,
      reads,
    }));
    const both = grouped([node("embed", 0), node("layers.0.head.1", 1)], heads, [
      { name: "group 1", members: ["embed"] },
    ]);
    expect(both.edges.map(({ reads, weight }) => [reads, weight])).toEqual([
      ["q", 1],
      ["k", 1],
    ]);
  });
});
