// One search's page: events bring news, the server renders them, the plots draw them.
import { controlSearch } from "./actions.js";
import { load } from "./data.js";
import { drawCurves } from "./curves.js";
import { drawEffects } from "./effects.js";
import { controlFront, drawFront } from "./front.js";
import { drawEvents } from "./happenings.js";
import { drawHeat } from "./heat.js";
import { connected, refresh } from "./live.js";
import { drawPaths, highlight } from "./paths.js";
import { onTheme } from "./plotly.js";
import "./copy.js";
import "./save.js";
import * as selection from "./selection.js";
import { on, segmented } from "./state.js";
import { listen } from "./stream.js";
import { onResize } from "./svg.js";
import { controlTrials, refreshTrials } from "./trials.js";
import { drawVolume } from "./volume.js";

const QUIET = 350; // ms between two updates of what is read at a glance
const SLOW = 4000; // ms between two updates of what takes the service longer
const RETRY = 2000;

const live = () => document.getElementById("live");
const id = live().dataset.search;
const place = (name) => document.getElementById(name);
const modules = JSON.parse(place("modules").dataset.modules);
const heat = segmented("heat", "share");
const factor = segmented("factor", "module");
const worth = segmented("worth", "averages");
const over = segmented("over", "trials");
const curve = segmented("curve", "top1");
const linkRows = selection.linkRows();
let pending = null;
let slowPending = null;
let told = null;
let gone = false; // the search is being deleted: there is nothing to ask for

const showHeat = () => told && drawHeat(place("heat"), told, modules, heat());
const showEffects = () => told && drawEffects(place("effects"), told, modules, factor(), worth());

async function update() {
  pending = null;
  if (gone) return;
  try {
    await refresh();
    linkRows();
    await drawFront();
    await refreshTrials();
    linkRows();
    connected(true);
  } catch (error) {
    connected(false);
    if (error.message === "404") return deleted();
    console.info(error.message);
    schedule(RETRY);
  }
}

function deleted() {
  gone = true;
  place("connection").textContent = "this search has been deleted";
}

async function updateSlow() {
  slowPending = null;
  if (gone) return;
  try {
    told = await load(`/api/v1/searches/${id}/effects`);
    showHeat();
    showEffects();
    await drawPaths(true);
    await drawVolume(id, over());
    await drawCurves(id, curve());
    await drawEvents();
    linkRows();
  } catch (error) {
    console.info(error.message);
  }
}

function schedule(delay = QUIET) {
  pending ??= setTimeout(update, delay);
  slowPending ??= setTimeout(updateSlow, Math.max(delay, SLOW));
}

/** A finished search may be extended later: look again when the user comes back to the page. */
function waitForMore(last) {
  const look = async () => {
    if (document.hidden) return;
    await update();
    if (Number(live().dataset.event) > Number(last)) {
      document.removeEventListener("visibilitychange", look);
      follow();
    }
  };
  document.addEventListener("visibilitychange", look);
}

function follow() {
  listen(id, live().dataset.event, () => schedule(), (last) => {
    schedule();
    waitForMore(last);
  });
}

const finished = () => ["succeeded", "failed", "cancelled"].includes(live().dataset.status);
const quietly = (work) => work.catch((error) => console.info(error.message));

controlSearch(id, (leaving) => (gone = leaving), (act) => {
  schedule(0);
  if (["extend", "retry"].includes(act)) follow();
});
controlTrials(linkRows);
on("heat", showHeat);
on("factor", showEffects);
on("worth", showEffects);
on("over", () => quietly(drawVolume(id, over())));
on("curve", () => quietly(drawCurves(id, curve())));
selection.onChange((what) => {
  highlight();
  if (what === "chosen") quietly(drawCurves(id, curve()));
});
onResize(place("heat"), showHeat);
onResize(place("effects"), showEffects);
onResize(place("paths"), () => quietly(drawPaths()));
onTheme(() => {
  quietly(drawVolume(id, over()));
  quietly(drawCurves(id, curve()));
});

await drawFront();
controlFront();
await updateSlow();
document.body.dataset.ready = "yes";
if (finished()) waitForMore(live().dataset.event);
else follow();
