// A search on paper: the same pictures, without their controls.
import { load } from "./data.js";
import { drawCurves } from "./curves.js";
import { drawEffects } from "./effects.js";
import { drawFront } from "./front.js";
import { drawHeat } from "./heat.js";
import { drawVolume } from "./volume.js";
import "./save.js";

const id = document.getElementById("live").dataset.search;
const modules = JSON.parse(document.getElementById("modules").dataset.modules);
const place = (name) => document.getElementById(name);

document.addEventListener("click", (event) => event.target.closest("[data-print]") && window.print());
await drawFront();
const told = await load(`/api/v1/searches/${id}/effects`);
drawHeat(place("heat"), told, modules, "share");
drawEffects(place("effects"), told, modules, "module");
await drawVolume(id, "trials");
await drawCurves(id, "top1", []);
document.body.dataset.ready = "yes";
