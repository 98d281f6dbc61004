// A saved page: results that are in the page itself, drawn as the studio draws them, with nobody to ask.
import { mount } from "svelte";
import "../app.css";
import { view } from "../lib/state.svelte";
import { held } from "./page";
import Saved from "./Saved.svelte";

view.language = navigator.language.startsWith("zh") ? "zh" : "en";
const target = document.getElementById("page")!;
held(document.getElementById("data")!.textContent!).then(
  (page) => mount(Saved, { target, props: { page } }),
  (error: Error) => (target.textContent = `This page cannot be drawn here: ${error.message}`),
);
