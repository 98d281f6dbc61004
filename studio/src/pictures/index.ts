// One picture per kind of result. A picture takes the result, the id under which the server keeps it, and what it is about.
import type { Component } from "svelte";
import type { Picture, ResultOf, Subject } from "../lib/api";
import Attention from "./Attention.svelte";
import Chances from "./Chances.svelte";
import Curve from "./Curve.svelte";
import Ledger from "./Ledger.svelte";
import Lens from "./Lens.svelte";
import Graph from "./Graph.svelte";
import Heads from "./Heads.svelte";
import Matrix from "./Matrix.svelte";
import Panel from "./Panel.svelte";
import Scores from "./Scores.svelte";
import Table from "./Table.svelte";
import Tree from "./Tree.svelte";

export type PictureProps<P extends Picture> = { result: ResultOf<P>; id: string; subject?: Subject };

export const PICTURES: { [P in Picture]?: Component<PictureProps<P>> } = {
  attention: Attention,
  chances: Chances,
  curve: Curve,
  ledger: Ledger,
  lens: Lens,
  graph: Graph,
  heads: Heads,
  matrix: Matrix,
  panel: Panel,
  scores: Scores,
  table: Table,
  tree: Tree,
};
