// Placement strips beside the points of the front, where they cover nothing.
const HEIGHT = 12;

/** order: numbers of the trials in each trace, as drawn. Strips are those of the table's rows. */
export function drawStrips(plot, order) {
  const layer = document.getElementById("front-strips");
  layer.replaceChildren();
  if (!plot._fullLayout || plot.clientWidth < 560) return;
  const { xaxis, yaxis } = plot._fullLayout;
  const frame = layer.getBoundingClientRect();
  const own = plot.getBoundingClientRect();
  const taken = [];
  const points = plot.data.flatMap((trace, index) => (order[index].length ? trace.x.map((x, at) => [xaxis._offset + xaxis.d2p(x), yaxis._offset + yaxis.d2p(trace.y[at])]) : []));
  for (const row of document.querySelectorAll("table.front tbody:first-of-type tr[data-number]")) {
    const number = Number(row.dataset.number);
    const index = order.findIndex((numbers, trace) => numbers.includes(number) && plot.data[trace].name !== "chosen");
    const strip = row.querySelector("svg.strip");
    if (index < 0 || !strip) continue;
    const trace = plot.data[index];
    const place = order[index].indexOf(number);
    const x = xaxis._offset + xaxis.d2p(trace.x[place]);
    const y = yaxis._offset + yaxis.d2p(trace.y[place]);
    const width = strip.width.baseVal.value;
    const right = x + 12 + width > xaxis._offset + xaxis._length;
    const box = { left: right ? x - 12 - width : x + 12, top: y - HEIGHT - 9, width, height: HEIGHT };
    if (taken.some((other) => overlap(box, other)) || points.some((point) => covers(box, point))) continue;
    taken.push(box);
    const copy = strip.cloneNode(true);
    copy.style.left = `${own.left - frame.left + box.left}px`;
    copy.style.top = `${own.top - frame.top + box.top}px`;
    layer.append(copy);
  }
}

const covers = (box, [x, y]) => x > box.left - 4 && x < box.left + box.width + 4 && y > box.top - 3 && y < box.top + box.height + 3;
const overlap = (a, b) => a.left < b.left + b.width + 4 && b.left < a.left + a.width + 4 && a.top < b.top + b.height + 3 && b.top < a.top + a.height + 3;
