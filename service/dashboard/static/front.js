// The front as a picture: staircase, baseline as an open diamond, controls as triangles, the dominated faded.
/* global Plotly */

const CACHE = new Map();
let shown = "";
let trials = [];

const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const plot = () => document.getElementById("front-plot");

/** Fetches the front and draws it; nothing is done when it has not changed. */
export async function drawFront(id) {
  const answer = await fetch(`/api/v1/searches/${id}/front`, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(`${answer.status}`);
  const front = await answer.json();
  const text = JSON.stringify([front.points, front.baseline, front.controls, front.dominated]);
  if (text === shown) return;
  shown = text;
  draw(front);
  matchMedia("(prefers-color-scheme: dark)").onchange = () => draw(front);
}

function draw(front) {
  const [quality, cost] = sorted(front.axes);
  const all = [...front.points, ...front.controls, ...front.dominated.points, ...(front.baseline ? [front.baseline] : [])];
  const scale = scaleOf(cost, all);
  const xy = (points) => ({
    x: points.map((point) => point.values[cost.metric] / scale.factor),
    y: points.map((point) => percent(quality, point.values[quality.metric])),
    customdata: points.map((point) => point.trial_id),
  });
  const ids = new Set(front.points.map((point) => point.trial_id));
  const besides = new Set([...front.controls, ...(front.baseline ? [front.baseline] : [])].map((point) => point.trial_id));
  const markers = (points, name, marker, more = {}) => ({
    type: "scatter", mode: "markers", name, hoverinfo: "none", ...xy(points), marker, ...more,
  });
  const plain = front.dominated.points.filter((point) => !besides.has(point.trial_id));
  const traces = [
    bins(front, quality, cost, scale),
    markers(plain, "dominated", { size: 7, color: ink("--faint"), opacity: 0.55 }),
    { type: "scatter", mode: "lines", ...staircase(xy(front.points), xy(all).x), line: { color: ink("--ink"), width: 1.5, shape: "hv" }, hoverinfo: "skip", showlegend: false },
    markers(front.points.filter((p) => p.role !== "baseline"), "on the front", { size: 11, color: ink("--ink"), line: { width: 2, color: ink("--surface") } }),
    markers(front.controls, "control: published placement", { symbol: "triangle-up-open", size: 12, color: ink("--ink"), line: { width: 1.8 } }),
    markers(front.baseline ? [front.baseline] : [], "baseline", { symbol: "diamond-open", size: 13, color: ink("--ink"), line: { width: 2 } }),
  ].filter(Boolean);
  trials = traces.map((trace) => trace.customdata ?? []);
  Plotly.react(plot(), traces, layout(quality, cost, scale), { displayModeBar: false, responsive: true });
  plot().removeAllListeners?.("plotly_hover");
  plot().on("plotly_hover", (event) => showTip(event.points[0]));
  plot().removeAllListeners?.("plotly_unhover");
  plot().on("plotly_unhover", hideTip);
  plot().dataset.drawn = String(front.points.length);
}

const sorted = ([a, b]) => (a.goal === "max" ? [a, b] : [b, a]);
const percent = (axis, value) => (axis.unit === "" && axis.goal === "max" ? 100 * value : value);

function scaleOf(cost, points) {
  const most = Math.max(...points.map((point) => point.values[cost.metric]), 1);
  const [factor, prefix] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([size]) => most >= size) ?? [1, ""];
  return { factor, unit: `${prefix}${cost.unit}` };
}

/** From each point of the front to the next one, and on to the most expensive trial: all below it is dominated. */
function staircase({ x, y }, everywhere) {
  if (!x.length) return { x, y };
  const order = x.map((_, index) => index).sort((a, b) => x[a] - x[b] || y[a] - y[b]);
  return { x: [...order.map((i) => x[i]), Math.max(...everywhere)], y: [...order.map((i) => y[i]), y[order.at(-1)]] };
}

function bins(front, quality, cost, scale) {
  if (!front.dominated.bins.length) return null;
  const [xs, ys] = front.axes[0].metric === cost.metric ? ["x", "y"] : ["y", "x"];
  const middle = ([low, high]) => (low + high) / 2;
  const most = Math.max(...front.dominated.bins.map((bin) => bin.count));
  return {
    type: "scatter", mode: "markers", name: "dominated, grouped", hoverinfo: "skip",
    x: front.dominated.bins.map((bin) => middle(bin[xs]) / scale.factor),
    y: front.dominated.bins.map((bin) => percent(quality, middle(bin[ys]))),
    marker: { symbol: "square", color: ink("--faint"), size: 8, opacity: front.dominated.bins.map((bin) => 0.15 + (0.6 * bin.count) / most) },
  };
}

function layout(quality, cost, scale) {
  const axis = { gridcolor: ink("--line"), zeroline: false, linecolor: ink("--faint"), tickcolor: ink("--faint"), ticks: "outside", ticklen: 4, automargin: true };
  const unit = quality.goal === "max" && quality.unit === "" ? " (%)" : quality.unit && ` (${quality.unit})`;
  const narrow = plot().clientWidth < 560;
  return {
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: ink("--muted") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 18, t: 38, b: 48 },
    xaxis: { ...axis, title: { text: `${narrow && cost.metric === "macs" ? "Multiply-adds" : cost.title}${scale.unit && ` (${scale.unit})`}`, standoff: 10 } },
    yaxis: { ...axis, title: { text: `${narrow ? "Top-1" : quality.title}${unit}`, standoff: 8 } },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.01, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", itemclick: false, itemdoubleclick: false },
    showlegend: true, hovermode: "closest", hoverdistance: 24, dragmode: false, uirevision: "front",
  };
}

async function showTip(point) {
  const trial = point.customdata;
  if (!trial) return;
  highlight(trial);
  if (!CACHE.has(trial)) {
    const answer = await fetch(`/live/trials/${trial}`, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    CACHE.set(trial, new DOMParser().parseFromString(await answer.text(), "text/html").body);
  }
  const tip = document.getElementById("tip");
  tip.replaceChildren(...CACHE.get(trial).cloneNode(true).childNodes);
  tip.hidden = false;
  place(tip, point);
}

function place(tip, point) {
  const frame = tip.parentElement.getBoundingClientRect();
  const own = plot().getBoundingClientRect();
  const x = own.left - frame.left + point.xaxis._offset + point.xaxis.d2p(point.x);
  const y = own.top - frame.top + point.yaxis._offset + point.yaxis.d2p(point.y);
  const left = x + 16 + tip.offsetWidth > frame.width ? x - 16 - tip.offsetWidth : x + 16;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(y - tip.offsetHeight / 2, frame.height - tip.offsetHeight - 4))}px`;
}

function hideTip() {
  document.getElementById("tip").hidden = true;
  highlight(undefined);
}

/** Lights the rows of a trial and its point; undefined puts the light out. */
let lit;
export function highlight(trial) {
  if (trial === lit) return;
  lit = trial;
  document.querySelectorAll("tr.lit").forEach((row) => row.classList.remove("lit"));
  if (trial) document.querySelectorAll(`tr[data-trial="${CSS.escape(trial)}"]`).forEach((row) => row.classList.add("lit"));
  const points = plot().querySelectorAll(".scatterlayer .trace");
  trials.filter((ids, index) => points[index]).forEach((ids, index) => {
    points[index].querySelectorAll(".points path").forEach((path, place) => path.classList.toggle("lit", Boolean(trial) && ids[place] === trial));
  });
}
