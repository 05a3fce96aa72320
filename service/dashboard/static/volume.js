// How the hypervolume has grown, along the trials or along time.
import { load } from "./data.js";
import { axis, config, ink, layout } from "./plotly.js";
import { message } from "./svg.js";

const place = () => document.getElementById("volume");
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

export async function drawVolume(search, over) {
  const front = await load(`/api/v1/searches/${search}/front?architectures=false`);
  const steps = front.steps.filter((step) => over === "trials" || step.seconds !== null);
  if (steps.length < 2) {
    Plotly.purge(place());
    return message(place(), "The hypervolume is drawn once two trials have raised it.");
  }
  if (!place().classList.contains("js-plotly-plot")) place().replaceChildren();
  const most = Math.max(...steps.map((step) => step.seconds ?? 0));
  const [size, unit] = UNITS.find(([seconds]) => most >= 2 * seconds) ?? [1, "s"];
  const x = steps.map((step) => (over === "trials" ? step.number : step.seconds / size));
  const y = steps.map((step) => step.hypervolume);
  if (over === "trials") {
    x.push(Math.max(x.at(-1), ...front.points.map((point) => point.number), front.points.length + front.dominated.count));
    y.push(y.at(-1));
  }
  const line = { type: "scatter", mode: "lines", x, y, line: { shape: "hv", color: ink("--ink"), width: 2 }, hovertemplate: "%{y:.4f}<extra></extra>" };
  const title = over === "trials" ? "Trial" : `Time since the start (${unit})`;
  await Plotly.react(place(), [line], layout({
    height: 280, xaxis: axis({ title: { text: title, standoff: 8 } }), yaxis: axis({ title: { text: "Hypervolume", standoff: 8 }, tickformat: ".3~f" }), hovermode: "x",
  }), config);
}
