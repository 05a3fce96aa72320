// What Plotly draws of a front.
import { ink } from "./plotly.js";

const LEVELS = 6;

/** along, up: axes with `metric` and `value` (how a number is written). chosen: whether a trial is. */
export function drawn(front, along, up, { published, chosen }) {
  const at = (points) => ({
    x: points.map((point) => along.value(point.values[along.metric])),
    y: points.map((point) => up.value(point.values[up.metric])),
    customdata: points.map((point) => point.number),
  });
  const markers = (points, name, marker, more = {}) => ({ type: "scatter", mode: "markers", name, hoverinfo: "none", ...at(points), marker, ...more });
  const base = front.baseline ? [front.baseline] : [];
  const besides = new Set([...front.controls, ...base].map((point) => point.number));
  const best = new Set(front.points.map((point) => point.number));
  const shown = [...front.points, ...front.controls, ...base];
  const others = front.dominated.numbers.map((number, index) => ({
    number, values: { [along.metric]: front.dominated.values[along.metric][index], [up.metric]: front.dominated.values[up.metric][index] },
  })).filter((point) => !besides.has(point.number));
  const line = ink("--ink");
  return [
    ...cells(front, along, up),
    markers(others, "dominated", { size: 7, color: ink("--faint"), opacity: 0.55 }, { showlegend: others.length > 0 }),
    { type: "scatter", mode: "lines", ...staircase(front, at, [...shown, ...others], along), line: { color: line, width: 1.5, shape: "hv" }, hoverinfo: "skip", showlegend: false },
    markers(front.points.filter((point) => !besides.has(point.number)), "on the front", { size: 10, color: line, line: { width: 2, color: ink("--surface") } }),
    markers(front.controls, "control: published placement", { symbol: front.controls.map((point) => (best.has(point.number) ? "triangle-up" : "triangle-up-open")), size: 12, color: line, line: { width: 1.8 } }, { showlegend: front.controls.length > 0 }),
    markers(base, "baseline", { symbol: "diamond-open", size: 13, color: line, line: { width: 2 } }, { showlegend: base.length > 0 }),
    ...confirmed(shown, along, up),
    ...(published ? [stars(front.published, along, up, at)] : []),
    markers([...shown, ...others].filter((point) => chosen(point.number)), "chosen", { symbol: "circle-open", size: 19, color: ink("--mark"), line: { width: 2.5 } }, { hoverinfo: "skip", showlegend: false, customdata: undefined }),
  ];
}

/** From each point of the front to the next, and on to the edge: all that lies behind it is dominated. */
function staircase(front, at, everything, along) {
  const { x, y } = at(front.points);
  if (!x.length) return { x, y };
  const less = along.goal === "min" ? 1 : -1;
  const order = x.map((_, index) => index).sort((a, b) => less * (x[a] - x[b]));
  const ends = at(everything);
  const edge = along.goal === "min" ? Math.max(...ends.x) : Math.min(...ends.x);
  const last = order.at(-1);
  return { x: [...order.map((i) => x[i]), edge], y: [...order.map((i) => y[i]), y[last]] };
}

/** The dominated in cells, darker where there are more: one outline for each of a few levels. */
function cells(front, along, up) {
  const grid = front.dominated.grid;
  if (!grid) return [];
  const [xs, ys] = front.axes[0].metric === along.metric ? [grid.x, grid.y] : [grid.y, grid.x];
  const turned = xs !== grid.x;
  const most = Math.max(...grid.cells.map(([, , count]) => count));
  const levels = Array.from({ length: LEVELS }, () => ({ x: [], y: [] }));
  for (const [column, row, count] of grid.cells) {
    const level = levels[Math.min(LEVELS - 1, Math.floor((LEVELS * Math.log1p(count)) / Math.log1p(most + 1)))];
    const [i, j] = turned ? [row, column] : [column, row];
    const [left, right, low, high] = [along.value(xs[i]), along.value(xs[i + 1]), up.value(ys[j]), up.value(ys[j + 1])];
    level.x.push(left, right, right, left, left, null);
    level.y.push(low, low, high, high, low, null);
  }
  return levels.map(({ x, y }, index) => ({
    type: "scatter", mode: "lines", x, y, fill: "toself", line: { width: 0 }, fillcolor: ink("--faint"), opacity: (0.12 + (0.75 * index) / LEVELS),
    hoverinfo: "skip", name: "dominated, counted in cells", showlegend: index === LEVELS - 2,
  }));
}

/** Means on the test split with their 95 % intervals, where the axis shows an accuracy of that kind. */
function confirmed(points, along, up) {
  if (!["top1", "test_top1"].includes(up.metric)) return [];
  const told = points.filter((point) => point.confirmed?.high);
  if (!told.length) return [];
  return [{
    type: "scatter", mode: "markers", name: "confirmed on the test split, 95 % interval", hoverinfo: "none",
    x: told.map((point) => along.value(point.values[along.metric])),
    y: told.map((point) => up.value(point.confirmed.mean)),
    customdata: told.map((point) => point.number),
    marker: { symbol: "square", size: 7, color: ink("--mark") },
    error_y: { type: "data", array: told.map((point) => up.value(point.confirmed.high) - up.value(point.confirmed.mean)), color: ink("--mark"), thickness: 1.5, width: 4 },
  }];
}

function stars(rows, along, up, at) {
  return {
    type: "scatter", mode: "markers", name: "published", x: at(rows).x, y: at(rows).y,
    marker: { symbol: "star", size: 11, color: ink("--surface"), line: { width: 1.4, color: ink("--ink") } },
    text: rows.map((row) => `${row.module}, ${row.placement}<br>${row.dataset}; ${row.source}`), hoverinfo: "text",
    hoverlabel: { bgcolor: ink("--surface"), font: { color: ink("--ink") } },
  };
}
