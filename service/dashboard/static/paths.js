// Parallel coordinates: a line for each trial through its choices, its cost and its accuracy.
import { paths } from "./paths_data.js";
import { scaleOf, ticks } from "./numbers.js";
import * as selection from "./selection.js";
import { canvas, element, message, text } from "./svg.js";

const HEIGHT = 340;
const TOP = 34;
const BOTTOM = 16;
const place = () => document.getElementById("paths");
let lines = new Map();

export async function drawPaths(fresh = false) {
  const data = await paths(fresh);
  if (data.paths.length < 2) return message(place(), "Lines appear once two trials have finished.");
  const width = Math.max(place().clientWidth, 110 * (data.stages.length + 2)); // a phone scrolls it
  const svg = canvas(place(), width, HEIGHT, `Choices of ${data.paths.length} trials; the table of trials holds the same`, "group");
  const axes = axesOf(data);
  const [left, right] = [92, width - 66];
  const xs = axes.map((_, index) => left + (index * (right - left)) / (axes.length - 1));
  lines = new Map();
  const layer = element("g");
  const sorted = [...data.paths].sort((a, b) => a[4] - b[4]);
  for (const path of sorted) {
    const line = element("path", { d: curve(xs, axes.map((axis) => axis.at(path))), class: path[4] ? "path front" : "path", "data-number": path[0] });
    lines.set(path[0], line);
    layer.append(line);
  }
  svg.append(layer);
  axes.forEach((axis, index) => svg.append(drawAxis(axis, xs[index], data)));
  layer.addEventListener("pointerover", (event) => event.target.dataset.number && selection.light([Number(event.target.dataset.number)]));
  layer.addEventListener("pointerleave", () => selection.light());
  layer.addEventListener("click", (event) => event.target.dataset.number && selection.toggle(Number(event.target.dataset.number)));
  highlight();
}

function curve(xs, ys) {
  return ys.map((y, index) => {
    if (!index) return `M${xs[0]} ${y}`;
    const middle = (xs[index - 1] + xs[index]) / 2;
    return `C${middle} ${ys[index - 1]} ${middle} ${y} ${xs[index]} ${y}`;
  }).join("");
}

function axesOf(data) {
  const stages = data.stages.map((stage, place) => {
    const used = [...new Set(data.paths.map((path) => path[1][place]))].map((index) => ({ index, ...data.fills[index] }));
    const names = [...new Set(used.map((fill) => fill.name))].sort((a, b) => (b === "none") - (a === "none") || a.length - b.length || a.localeCompare(b));
    const room = (HEIGHT - TOP - BOTTOM) / names.length;
    // within a module, weak and few above strong and many, so that lines do not lie on each other
    const groups = Object.fromEntries(names.map((name) => [name, used.filter((fill) => fill.name === name).sort((a, b) => (b.ratio ?? 0) - (a.ratio ?? 0) || a.pattern.localeCompare(b.pattern)).map((fill) => fill.index)]));
    const at = (path) => {
      const name = data.fills[path[1][place]].name;
      const group = groups[name];
      const inside = group.length === 1 ? 0.5 : 0.14 + (0.72 * group.indexOf(path[1][place])) / (group.length - 1);
      return HEIGHT - BOTTOM - (names.indexOf(name) + inside) * room;
    };
    return { title: `Stage ${stage}`, names, room, at, colours: Object.fromEntries(used.map((fill) => [fill.name, fill.colours])), place };
  });
  const quality = data.unit ? (value) => value : (value) => 100 * value;
  const title = `${data.metric === "top1" ? "Top-1" : data.title.split(",")[0]}, ${data.unit || "%"}`;
  return [...stages, numeric("Multiply-adds", data.paths.map((path) => path[3]), (path) => path[3], true), numeric(title, data.paths.map((path) => quality(path[2])), (path) => quality(path[2]), false)];
}

function numeric(title, values, of, prefixed) {
  const { factor, unit } = prefixed ? scaleOf(Math.max(...values), "MAC") : { factor: 1, unit: "" };
  const [low, high] = [Math.min(...values) / factor, Math.max(...values) / factor];
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low || 1)) * (HEIGHT - TOP - BOTTOM);
  return { title: unit || title, at: (path) => y(of(path) / factor), ticks: ticks(low, high, 5).filter((tick) => tick >= low && tick <= high).map((tick) => ({ y: y(tick), text: String(Number(tick.toPrecision(4))) })) };
}

function drawAxis(axis, x, data) {
  const group = element("g", { class: "axis" });
  group.append(element("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM, class: "rule" }));
  group.append(text(x, 16, axis.title, { class: "tick strong", "text-anchor": "middle" }));
  for (const tick of axis.ticks ?? []) {
    group.append(element("line", { x1: x - 3, x2: x + 3, y1: tick.y, y2: tick.y, class: "rule" }));
    group.append(text(x + 8, tick.y, tick.text, { class: "tick halo", "dominant-baseline": "central" }));
  }
  (axis.names ?? []).forEach((name, index) => {
    const low = HEIGHT - BOTTOM - index * axis.room;
    const colours = axis.colours[name];
    const bar = element("g", { class: "choice", tabindex: 0, role: "button", "aria-label": `${axis.title}: ${name}` });
    bar.append(element("rect", { x: x - 5, y: low - axis.room + 3, width: 10, height: axis.room - 6, rx: 3, class: colours.length ? `m${colours[0]}` : "choice-none" }));
    if (colours.length > 1) bar.append(element("rect", { x, y: low - axis.room + 3, width: 5, height: axis.room - 6, rx: 3, class: `m${colours[1]}` }));
    bar.append(text(x - 10, low - axis.room / 2, name, { class: "tick halo", "text-anchor": "end", "dominant-baseline": "central" }));
    const mine = () => data.paths.filter((path) => data.fills[path[1][axis.place]].name === name).map((path) => path[0]);
    bar.addEventListener("pointerenter", () => selection.light(mine()));
    bar.addEventListener("pointerleave", () => selection.light());
    bar.addEventListener("focus", () => selection.light(mine()));
    bar.addEventListener("blur", () => selection.light());
    group.append(bar);
  });
  return group;
}

export function highlight() {
  const faded = selection.anyLit();
  for (const [number, line] of lines) {
    line.classList.toggle("lit", selection.isLit(number));
    line.classList.toggle("chosen", selection.isChosen(number));
    line.classList.toggle("away", faded && !selection.isLit(number));
  }
}
