// Learning curves of the chosen trials; of the baseline and the best where none is chosen.
import { axis, config, ink, layout } from "./plotly.js";
import * as selection from "./selection.js";
import { message } from "./svg.js";

const TITLES = { top1: "Validation top-1 (%)", val_loss: "Validation loss (nat)", train_loss: "Training loss (nat)" };
const DASHES = ["solid", "dash", "dot", "dashdot"];
const place = () => document.getElementById("curves");
let latest = 0;

export async function drawCurves(search, metric, wanted = selection.all()) {
  const mine = ++latest;
  const numbers = wanted.slice(0, 12);
  const answer = await fetch(`/live/searches/${search}/curves${numbers.length ? `?numbers=${numbers.join(",")}` : ""}`);
  if (!answer.ok || mine !== latest) return;
  const { curves } = await answer.json();
  const drawn = curves.filter((curve) => curve[metric].some((value) => value !== null));
  if (!drawn.length) {
    Plotly.purge(place());
    return message(place(), curves.length ? "These trials have not reported this quantity." : "No epoch has ended yet.");
  }
  if (!place().classList.contains("js-plotly-plot")) place().replaceChildren();
  const factor = metric === "top1" ? 100 : 1;
  const lines = drawn.map((curve, index) => ({
    type: "scatter", mode: "lines+markers", x: curve.epoch, y: curve[metric].map((value) => (value === null ? null : factor * value)),
    name: `${curve.role === "baseline" ? "baseline, " : ""}trial ${curve.number}`, marker: { size: 4 },
    line: { color: curve.role === "baseline" ? ink("--faint") : index % 2 ? ink("--mark") : ink("--ink"), dash: DASHES[Math.floor(index / 2) % 4], width: 1.8 },
    hovertemplate: `trial ${curve.number}: %{y:.4~g}<extra></extra>`,
  }));
  await Plotly.react(place(), lines, layout({
    height: 280, xaxis: axis({ title: { text: "Epoch", standoff: 8 }, rangemode: "tozero" }), yaxis: axis({ title: { text: TITLES[metric], standoff: 8 } }),
    showlegend: lines.length > 1, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11.5 } }, margin: { l: 56, r: 18, t: 34, b: 48 },
  }), config);
}
