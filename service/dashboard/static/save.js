// Pictures to keep: any plot as SVG or PNG, in the colours it has on the page.
const KEPT = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-family", "font-size", "font-weight", "text-anchor", "dominant-baseline"];
const SCALE = 2;

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-save]");
  if (!button) return;
  const place = document.getElementById(button.dataset.target);
  const picture = place.classList.contains("js-plotly-plot") ? await ofPlotly(place) : ofDrawing(place.querySelector("svg"));
  if (!picture) return;
  const name = `attune-${(place.dataset.title ?? "plot").toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}`;
  if (button.dataset.save === "svg") offer(new Blob([picture.text], { type: "image/svg+xml" }), `${name}.svg`);
  else offer(await rasterised(picture), `${name}.png`);
});

async function ofPlotly(place) {
  const { width, height } = place.getBoundingClientRect();
  const url = await Plotly.toImage(place, { format: "svg", width, height });
  return { text: backed(decodeURIComponent(url.slice(url.indexOf(",") + 1)), width, height), width, height };
}

function ofDrawing(drawing) {
  if (!drawing) return null;
  const copy = drawing.cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const originals = [drawing, ...drawing.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((element, index) => {
    const style = getComputedStyle(originals[index]);
    for (const name of KEPT) element.setAttribute(name, style.getPropertyValue(name));
    element.removeAttribute("class");
  });
  const { width, height } = drawing.viewBox.baseVal;
  return { text: backed(new XMLSerializer().serializeToString(copy), width, height), width, height };
}

/** With the page's paper behind it. */
function backed(text, width, height) {
  const paper = getComputedStyle(document.documentElement).getPropertyValue("--surface").trim();
  return text.replace(/(<svg[^>]*>)/, `$1<rect width="${width}" height="${height}" fill="${paper}"/>`);
}

async function rasterised({ text, width, height }) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const sheet = Object.assign(document.createElement("canvas"), { width: width * SCALE, height: height * SCALE });
  const pen = sheet.getContext("2d");
  pen.scale(SCALE, SCALE);
  pen.drawImage(image, 0, 0, width, height);
  return new Promise((done) => sheet.toBlob(done, "image/png"));
}

function offer(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
