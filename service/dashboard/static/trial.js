// One trial's page: its curve, and what its sites cost; live while it runs.
import "./copy.js";
import { drawCurves } from "./curves.js";
import { connected, refresh } from "./live.js";
import { onTheme } from "./plotly.js";
import "./save.js";
import { on, segmented } from "./state.js";
import { listen } from "./stream.js";

const QUIET = 350; // ms between two updates
const RETRY = 2000;
const live = () => document.getElementById("live");
const { search, trial, number } = live().dataset;
const curve = segmented("curve", "top1");
const draw = () => drawCurves(search, curve(), [Number(number)]).catch((error) => console.info(error.message));
const runs = () => live().dataset.status === "running";
let pending = null;

async function update() {
  pending = null;
  try {
    await refresh();
    await draw();
    connected(true);
    if (!runs()) stop();
  } catch (error) {
    connected(false);
    console.info(error.message);
    schedule(RETRY);
  }
}

function schedule(delay = QUIET) {
  pending ??= setTimeout(update, delay);
}

on("curve", draw);
onTheme(draw);
await draw();
await refresh(document.getElementById("costs")).catch((error) => console.info(error.message));
document.body.dataset.ready = "yes";
const mine = (kind, about) => kind === "open" || about?.trial_id === trial || kind === "search.status";
const stop = runs() ? listen(search, live().dataset.event, (kind, about) => mine(kind, about) && schedule(), () => schedule()) : () => {};
