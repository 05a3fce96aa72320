// One trial's page: its curve, and what its sites cost.
import "./copy.js";
import { drawCurves } from "./curves.js";
import { refresh } from "./live.js";
import { onTheme } from "./plotly.js";
import "./save.js";
import { on, segmented } from "./state.js";

const { search, number } = document.getElementById("live").dataset;
const curve = segmented("curve", "top1");
const draw = () => drawCurves(search, curve(), [Number(number)]).catch((error) => console.info(error.message));

on("curve", draw);
onTheme(draw);
await draw();
await refresh(document.getElementById("costs")).catch((error) => console.info(error.message));
document.body.dataset.ready = "yes";
