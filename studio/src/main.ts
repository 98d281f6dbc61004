import { mount } from "svelte";
import "./app.css";
import App from "./App.svelte";
import { takeToken } from "./lib/api";
import { read } from "./lib/state.svelte";

takeToken();
read(location.search, history.state);
mount(App, { target: document.getElementById("app")! });
