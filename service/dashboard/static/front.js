// The front as a picture: staircase, baseline as an open diamond, controls as triangles, published rows as stars,
// confirmed points with error bars, the dominated faded. Two metrics, each as it is or on a logarithmic axis.
import { load } from "./data.js";
import { drawn as traces } from "./front_traces.js";
import { scaleOf } from "./numbers.js";
import { axis, config, ink, layout, onTheme } from "./plotly.js";
import * as selection from "./selection.js";
import { get, on, set } from "./state.js";
import { drawStrips } from "./strips.js";
import { hideTip, showTip } from "./tip.js";

const plot = () => document.getElementById("front-plot");
const live = () => document.getElementById("live");
let front = null;
let order = [];
let shown = "";

/** Names of the metrics along x and up y: as chosen, else the search's cost against its quality. */
function axes() {
  const [first, second] = live().dataset.axes.split(",");
  const usual = { y: first, x: second };
  const chosen = { x: get("x", usual.x), y: get("y", usual.y) };
  return { ...chosen, usual: chosen.x === usual.x && chosen.y === usual.y, defaults: usual };
}

/** Fetches the front and draws it, if it has changed. */
export async function drawFront() {
  const { x, y } = axes();
  const query = new URLSearchParams({ architectures: "false", x, y });
  front = await load(`/api/v1/searches/${live().dataset.search}/front?${query}`);
  const text = JSON.stringify([x, y, get("log"), get("published"), selection.all(), { ...front, last_event: 0 }]);
  document.querySelector("[data-published-label]").hidden = front.published.length === 0;
  if (text === shown) return drawStrips(plot(), order);
  shown = text;
  await draw();
}

async function draw() {
  const byName = Object.fromEntries(front.axes.map((each) => [each.metric, each]));
  const names = axes();
  const along = { ...byName[names.x], ...reading(byName[names.x]) };
  const up = { ...byName[names.y], ...reading(byName[names.y]) };
  const found = traces(front, along, up, { published: get("published") === "1", chosen: selection.isChosen });
  order = found.map((trace) => trace.customdata ?? []);
  const narrow = plot().clientWidth < 560;
  const title = (each) => ({ text: `${narrow ? each.short : each.title}${each.label && ` (${each.label})`}`, standoff: 10 });
  const type = get("log") === "1" ? "log" : "linear";
  await Plotly.react(plot(), found, layout({
    margin: { l: 56, r: 18, t: 38, b: 48 },
    xaxis: axis({ title: title(along), type: along.fraction && along.goal === "max" ? "linear" : type }),
    yaxis: axis({ title: title(up), type: up.fraction && up.goal === "max" ? "linear" : type }),
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.01, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", itemclick: false, itemdoubleclick: false },
    showlegend: true, hoverdistance: 24, dragmode: matchMedia("(pointer: fine)").matches ? "select" : false, uirevision: "front",
    selections: [], newselection: { line: { color: ink("--muted"), width: 1 } },
  }), config);
  plot().dataset.drawn = String(front.points.length);
  highlight();
  drawStrips(plot(), order);
}

/** How a metric's values are written on an axis. */
function reading(metric) {
  const fraction = metric.kind === "quality" && metric.unit === "";
  const short = { macs: "Multiply-adds", top1: "Top-1" }[metric.metric] ?? metric.title;
  if (fraction) return { fraction, short, value: (v) => 100 * v, label: "%" };
  const values = [...front.points, ...front.controls, ...(front.baseline ? [front.baseline] : [])].map((point) => point.values[metric.metric]);
  const { factor, unit } = scaleOf(Math.max(...values, 0), metric.unit === "s" || metric.unit === "ms" || metric.unit === "nat" ? "" : metric.unit);
  return { fraction, short, value: (v) => v / factor, label: `${unit}${["s", "ms", "nat"].includes(metric.unit) ? metric.unit : ""}` };
}

function highlight() {
  const groups = plot().querySelectorAll(".scatterlayer .trace");
  const faded = selection.anyLit();
  order.forEach((numbers, index) => {
    groups[index]?.querySelectorAll(".points path").forEach((path, place) => {
      path.classList.toggle("lit", selection.isLit(numbers[place]));
      path.classList.toggle("away", faded && !selection.isLit(numbers[place]));
    });
  });
}

const numberOf = (point) => point.customdata;

function position(point) {
  const frame = document.getElementById("tip").offsetParent.getBoundingClientRect();
  const own = plot().getBoundingClientRect();
  return {
    x: own.left - frame.left + point.xaxis._offset + point.xaxis.d2p(point.x),
    y: own.top - frame.top + point.yaxis._offset + point.yaxis.d2p(point.y),
  };
}

/** Lets the user choose the axes and points. Call once, after the first drawing. */
export function controlFront() {
  plot().on("plotly_hover", ({ points: [point] }) => {
    if (!numberOf(point)) return;
    selection.light([numberOf(point)]);
    showTip(live().dataset.search, numberOf(point), () => position(point));
  });
  plot().on("plotly_unhover", () => {
    selection.light();
    hideTip();
  });
  plot().on("plotly_click", ({ points: [point] }) => numberOf(point) && selection.toggle(numberOf(point)));
  plot().on("plotly_selected", (event) => {
    const numbers = (event?.points ?? []).map(numberOf).filter(Boolean);
    if (numbers.length) selection.add(numbers);
  });
  selection.onChange((what) => (what === "lit" ? highlight() : drawFront()));
  onTheme(draw);
  new ResizeObserver(() => drawStrips(plot(), order)).observe(plot());
  const selects = [...document.querySelectorAll("[data-axis]")];
  const log = document.querySelector("[data-log]");
  const published = document.querySelector("[data-published]");
  const show = () => {
    const now = axes();
    for (const select of selects) {
      select.value = now[select.dataset.axis];
      for (const option of select.options) option.disabled = option.value === now[select.dataset.axis === "x" ? "y" : "x"];
    }
    log.checked = get("log") === "1";
    published.checked = get("published") === "1";
  };
  selects.forEach((select) => select.addEventListener("change", () => set({ [select.dataset.axis]: select.value }, axes().defaults)));
  log.addEventListener("change", () => set({ log: log.checked ? "1" : "" }));
  published.addEventListener("change", () => set({ published: published.checked ? "1" : "" }));
  ["x", "y", "log", "published"].forEach((name) => on(name, () => {
    show();
    drawFront().catch((error) => console.warn(error.message));
  }));
  show();
}
