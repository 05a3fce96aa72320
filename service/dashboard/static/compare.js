// Fronts of several searches in one plot; a search is told by its dash and sign, since colours are the modules'.
import { scaleOf } from "./numbers.js";
import { axis, config, ink, layout, onTheme } from "./plotly.js";
import "./save.js";
import { element, message } from "./svg.js";

const SIGNS = ["circle", "square", "triangle-up", "diamond", "cross", "star", "pentagon", "hexagon"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash"];
const place = document.getElementById("compare-plot");
const inkOf = (index) => (index % 2 ? ink("--mark") : ink("--ink"));
const { searches: fronts, merged } = await (await fetch(`/live/compare${location.search}`)).json();

function draw() {
  const points = fronts.flatMap((front) => [...front.points, ...(front.baseline ? [front.baseline] : [])]);
  if (!points.length) return message(place, "None of these searches has a result yet.");
  const { factor, unit } = scaleOf(Math.max(...points.map((point) => point.values.macs)), "MAC");
  const lines = fronts.map((front, index) => {
    const sorted = [...front.points].sort((a, b) => a.values.macs - b.values.macs);
    return {
      type: "scatter", mode: "lines+markers", name: front.name, x: sorted.map((p) => p.values.macs / factor), y: sorted.map((p) => 100 * p.values.top1),
      line: { shape: "hv", color: inkOf(index), dash: DASHES[index], width: 1.6 }, marker: { symbol: SIGNS[index], size: 9, color: inkOf(index) },
      text: sorted.map((p) => p.label), hovertemplate: "%{y:.2f} %, %{x:.3~f}<br>%{text}<extra></extra>",
      hoverlabel: { bgcolor: ink("--surface"), font: { color: ink("--ink") } },
    };
  });
  // below the others: a band along what none of them beats
  if (fronts.length > 1) {
    const sorted = merged.map(({ point }) => point.values).sort((a, b) => a.macs - b.macs);
    const x = sorted.map((values) => values.macs / factor);
    lines.unshift({
      type: "scatter", mode: "lines", name: "merged front", x: [...x, Math.max(...points.map((point) => point.values.macs)) / factor], y: [...sorted, sorted.at(-1)].map((values) => 100 * values.top1),
      line: { shape: "hv", color: ink("--band"), width: 9 }, hoverinfo: "skip",
    });
  }
  return Plotly.react(place, lines, layout({
    height: 420, xaxis: axis({ title: { text: `Multiply-adds of one forward pass (${unit})`, standoff: 10 } }), yaxis: axis({ title: { text: "Validation top-1 accuracy (%)", standoff: 8 } }),
    showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", itemclick: false, itemdoubleclick: false }, margin: { l: 56, r: 18, t: 40, b: 52 },
  }), config);
}

/** The sign of each search wherever its name stands. */
function sign() {
  const shapes = [["circle", { cx: 7, cy: 7, r: 4.5 }], ["rect", { x: 3, y: 3, width: 8, height: 8 }], ["path", { d: "M7 2l5.5 10h-11z" }], ["path", { d: "M7 1.5l5 5.5-5 5.5-5-5.5z" }], ["path", { d: "M5 2h4v3h3v4h-3v3h-4v-3h-3v-4h3z" }], ["path", { d: "M7 1l1.8 4 4.2.4-3.2 2.9 1 4.2L7 10.2 3.2 12.5l1-4.2L1 5.4 5.2 5z" }], ["path", { d: "M7 2l5 4-2 6H4L2 6z" }], ["path", { d: "M4 2h6l3 5-3 5H4L1 7z" }]];
  for (const spot of document.querySelectorAll("[data-series]")) {
    const index = Number(spot.dataset.series);
    const [name, attributes] = shapes[index];
    spot.replaceChildren(element("svg", { width: 14, height: 14, "aria-hidden": "true" }, element(name, { ...attributes, fill: inkOf(index) })));
  }
}

const show = () => {
  draw();
  sign();
};
onTheme(show);
show();
document.body.dataset.ready = "yes";
