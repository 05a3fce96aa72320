// Stage by block: how much of the front uses a site, or what it gains on average; a row for each module.
import { changesOf } from "./changes.js";
import * as selection from "./selection.js";
import { canvas, element, message, text } from "./svg.js";
import { numbersAt } from "./paths_data.js";

const ROW = 34;
const LABEL = 92;
const GAP = 10;
const END = 26;
const MOST = 54;
const DARK = 0.55; // opacity from which numbers stand in white
const ROOM_FOR_NUMBERS = 30;
const ROOM_FOR_DIGITS = 44; // a third decimal

/** effects: the answer of GET effects. modules: {kind: {name, colour}}. mode: share or gain. */
export function drawHeat(place, effects, modules, mode) {
  if (!effects.sites.length) return message(place, "No placement has been trained yet.");
  const changes = changesOf(effects);
  const kinds = ["", ...new Set(effects.sites.map((site) => site.kind).filter(Boolean))];
  const columns = columnsOf(effects);
  const width = Math.max(place.clientWidth, 260);
  const side = Math.min(MOST, (width - LABEL - END * columns.ends - GAP * columns.stages.length) / columns.blocks);
  const told = `Stage by block, ${mode === "share" ? "share of the front" : `mean ${changes.noun} of ${changes.words}`}; the table under “Where attention pays” in the report holds the numbers.`;
  const svg = canvas(place, width, 44 + ROW * kinds.length, told);
  const most = Math.max(...effects.sites.map((site) => (mode === "share" ? site.share : Math.abs(site.gain?.value ?? 0))), 1e-9);
  kinds.forEach((kind, row) => svg.append(text(0, 44 + ROW * row + ROW / 2, kind ? modules[kind].name : "any module", { class: "tick label", "dominant-baseline": "central" })));
  let x = LABEL;
  for (const { stage, places } of columns.stages) {
    const start = x;
    for (const block of places) {
      const cell = block === null ? END - 6 : side;
      svg.append(text(x + cell / 2, 34, block === null ? "end" : block, { class: "tick", "text-anchor": "middle" }));
      kinds.forEach((kind, row) => {
        const site = effects.sites.find((each) => each.stage === stage && each.block === block && each.kind === kind);
        svg.append(cellOf({ x, y: 44 + ROW * row, width: cell - 2, site, mode, most, changes, colour: kind ? modules[kind].colour : null, effects, stage, block, kind, modules }));
      });
      x += block === null ? END : cell;
    }
    svg.append(text((start + x) / 2, 14, `stage ${stage}`, { class: "tick strong", "text-anchor": "middle" }));
    x += GAP;
  }
}

function columnsOf(effects) {
  const stages = Object.entries(effects.stages).map(([stage, blocks]) => {
    const ends = effects.sites.some((site) => site.stage === Number(stage) && site.block === null);
    return { stage: Number(stage), places: [...Array.from({ length: blocks }, (_, index) => index + 1), ...(ends ? [null] : [])] };
  });
  return {
    stages,
    blocks: stages.reduce((sum, { places }) => sum + places.filter((block) => block !== null).length, 0),
    ends: stages.filter(({ places }) => places.includes(null)).length,
  };
}

function cellOf({ x, y, width, site, mode, most, changes, colour, effects, stage, block, kind, modules }) {
  const height = ROW - 4;
  const group = element("g", { class: "heat-cell" });
  const value = site ? (mode === "share" ? site.share : site.gain?.value) : undefined;
  group.append(element("rect", { x, y, width, height, rx: 2, class: "heat-empty" }));
  if (value !== undefined && value !== null) {
    const pale = mode === "gain" && site.gain.low <= 0 && site.gain.high >= 0;
    const strength = Math.abs(value) / most;
    const tint = mode === "gain" && value < 0 ? "heat-loss" : colour === null ? "heat-any" : `m${colour}`;
    const opacity = strength === 0 ? 0 : (pale ? 0.35 : 1) * (0.12 + 0.78 * strength);
    group.append(element("rect", { x, y, width, height, rx: 2, class: tint, "fill-opacity": opacity }));
    if (width >= ROOM_FOR_NUMBERS) group.append(text(x + width / 2, y + height / 2, mode === "share" ? Math.round(100 * value) : changes.write(value, changes.digits - (width < ROOM_FOR_DIGITS || changes.digits < 3 ? 1 : 0)), { class: `heat-number${pale || strength === 0 ? " pale" : ""}${opacity > DARK ? " inverse" : ""}`, "text-anchor": "middle", "dominant-baseline": "central" }));
  } else if (width >= ROOM_FOR_NUMBERS) {
    group.append(text(x + width / 2, y + height / 2, site ? "·" : "", { class: "heat-number pale", "text-anchor": "middle", "dominant-baseline": "central" }));
  }
  group.append(element("title", {}, words(site, effects, stage, block, kind, modules, changes)));
  group.addEventListener("pointerenter", async () => selection.light(await numbersAt(stage, block, kind)));
  group.addEventListener("pointerleave", () => selection.light());
  return group;
}

function words(site, effects, stage, block, kind, modules, changes) {
  const where = `stage ${stage}, ${block === null ? "at the end" : `block ${block}`}: ${kind ? modules[kind].name : "any module"}`;
  if (!site) return `${where} – never tried`;
  const share = `in ${site.front} of ${effects.front} placements of the front, tried ${site.trials} times`;
  const gain = site.gain ? `; mean ${changes.noun} ${changes.write(site.gain.value)} ${changes.label} (${changes.range(site.gain)})` : `; too few trials for a mean ${changes.noun}`;
  return `${where} – ${share}${gain}`;
}
