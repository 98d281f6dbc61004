// The formulas, as trees of MathML elements.
export type Node = string | { tag: string; of: Node[] };

const el = (tag: string, ...of: Node[]): Node => ({ tag, of });
const row = (...of: Node[]): Node => el("mrow", ...of);
const v = (x: string): Node => el("mi", x);
const o = (x: string): Node => el("mo", x);
const n = (x: string | number): Node => el("mn", String(x));
const f = (x: string): Node => el("mi", x); // of several letters: upright, as names of functions are
const sub = (x: Node, y: Node): Node => el("msub", x, y);
const sup = (x: Node, y: Node): Node => el("msup", x, y);
const both = (x: Node, y: Node, z: Node): Node => el("msubsup", x, y, z);
const frac = (x: Node, y: Node): Node => el("mfrac", x, y);
const root = (x: Node): Node => el("msqrt", x);
const hat = (x: string): Node => el("mover", v(x), o("^"));
const sum = (below: Node): Node => el("munder", o("∑"), below);
const call = (name: Node, ...of: Node[]): Node => row(name, o("("), ...of, o(")"));
const eq = o("=");
const exp = (x: Node): Node => sup(v("e"), x);
const dot = o("·");
const times = o("⊙");
const [minus, plus, comma] = [o("−"), o("+"), o(",")];
const t = v("t");

export const FORMULAS: Record<string, Node[]> = {
  tokens: [
    row(f("text"), o("→"), o("("), sub(t, n(1)), comma, sub(t, n(2)), comma, o("…"), comma, sub(t, v("n")), o(")"), comma, sub(t, v("i")), o("∈"), o("{"), n(0), comma, o("…"), comma, v("V"), minus, n(1), o("}")),
  ],
  embedding: [
    row(sub(v("x"), v("i")), eq, v("E"), o("["), sub(t, v("i")), o("]")),
    row(f("cos"), o("("), v("a"), comma, v("b"), o(")"), eq, frac(row(v("a"), dot, v("b")), row(o("|"), v("a"), o("|"), o("|"), v("b"), o("|")))),
  ],
  attention: [
    row(sub(v("s"), v("j")), eq, frac(row(v("q"), dot, sub(v("k"), v("j"))), root(v("d")))),
    row(sub(v("a"), v("j")), eq, frac(exp(sub(v("s"), v("j"))), row(sum(v("m")), exp(sub(v("s"), v("m")))))),
    row(v("z"), eq, sum(v("j")), sub(v("a"), v("j")), sub(v("v"), v("j"))),
  ],
  gru: [
    row(v("n"), eq, call(f("tanh"), v("W"), v("x"), plus, v("r"), times, v("U"), sub(v("h"), row(t, minus, n(1))))),
    row(sub(v("h"), t), eq, o("("), n(1), minus, v("z"), o(")"), times, v("n"), plus, v("z"), times, sub(v("h"), row(t, minus, n(1)))),
  ],
  lstm: [
    row(sub(v("c"), t), eq, v("f"), times, sub(v("c"), row(t, minus, n(1))), plus, v("i"), times, v("g")),
    row(sub(v("h"), t), eq, v("o"), times, call(f("tanh"), sub(v("c"), t))),
  ],
  block: [
    row(sup(v("x"), o("′")), eq, v("x"), plus, call(f("Attention"), call(f("norm"), v("x")))),
    row(sup(v("x"), o("″")), eq, sup(v("x"), o("′")), plus, call(f("MLP"), call(f("norm"), sup(v("x"), o("′"))))),
    row(call(f("norm"), v("x")), eq, v("g"), times, frac(v("x"), call(f("rms"), v("x")))),
    row(call(f("MLP"), v("x")), eq, sub(v("W"), f("down")), o("("), call(v("σ"), sub(v("W"), f("gate")), v("x")), times, sub(v("W"), f("up")), v("x"), o(")")),
  ],
  loss: [
    row(sub(v("p"), v("i")), eq, frac(exp(sub(v("s"), v("i"))), row(sum(v("m")), exp(sub(v("s"), v("m")))))),
    row(v("L"), eq, minus, f("ln"), sub(v("p"), v("y")), eq, f("ln"), sum(v("m")), exp(sub(v("s"), v("m"))), minus, sub(v("s"), v("y"))),
    row(frac(row(o("∂"), v("L")), row(o("∂"), sub(v("s"), v("i")))), eq, sub(v("p"), v("i")), minus, o("["), v("i"), eq, v("y"), o("]")),
  ],
  gradient: [
    row(frac(row(o("∂"), v("L")), row(o("∂"), v("w"))), o("≈"), frac(row(v("L"), o("("), v("w"), plus, v("ε"), o(")"), minus, v("L"), o("("), v("w"), minus, v("ε"), o(")")), row(n(2), v("ε")))),
  ],
  step: [
    row(v("m"), o("←"), sub(v("β"), n(1)), v("m"), plus, o("("), n(1), minus, sub(v("β"), n(1)), o(")"), v("g")),
    row(v("v"), o("←"), sub(v("β"), n(2)), v("v"), plus, o("("), n(1), minus, sub(v("β"), n(2)), o(")"), sup(v("g"), n(2))),
    row(hat("m"), eq, frac(v("m"), row(n(1), minus, both(v("β"), n(1), t))), comma, hat("v"), eq, frac(v("v"), row(n(1), minus, both(v("β"), n(2), t)))),
    row(v("w"), o("←"), v("w"), minus, v("η"), v("λ"), v("w"), minus, v("η"), frac(hat("m"), row(root(hat("v")), plus, v("ε")))),
  ],
  training: [
    row(v("θ"), o("←"), v("θ"), minus, v("η"), dot, call(f("AdamW"), sub(o("∇"), v("θ")), v("L"))),
    row(v("L"), eq, frac(n(1), v("N")), sum(v("i")), minus, f("ln"), call(v("p"), sub(t, v("i")), o("|"), sub(t, row(o("<"), v("i"))))),
  ],
  sampling: [
    row(sub(v("p"), v("i")), eq, frac(exp(row(sub(v("s"), v("i")), o("/"), v("T"))), row(sum(v("m")), exp(row(sub(v("s"), v("m")), o("/"), v("T")))))),
    row(f("next"), eq, f("min"), o("{"), v("i"), o(":"), sub(v("p"), n(1)), plus, o("⋯"), plus, sub(v("p"), v("i")), o(">"), v("u"), o("}")),
  ],
  sigmoid: [
    row(v("z"), eq, v("w"), dot, v("x"), plus, v("b"), comma, hat("y"), eq, call(v("σ"), v("z")), eq, frac(n(1), row(n(1), plus, exp(row(minus, v("z")))))),
    row(v("L"), eq, minus, v("y"), f("ln"), hat("y"), minus, o("("), n(1), minus, v("y"), o(")"), call(f("ln"), n(1), minus, hat("y"))),
    row(frac(row(o("∂"), v("L")), row(o("∂"), sub(v("w"), v("i")))), eq, o("("), hat("y"), minus, v("y"), o(")"), sub(v("x"), v("i")), comma, sub(v("w"), v("i")), o("←"), sub(v("w"), v("i")), minus, v("η"), o("("), hat("y"), minus, v("y"), o(")"), sub(v("x"), v("i"))),
  ],
}; // prettier-ignore
