// What each choice is worth: a point and its interval for every choice, stage by stage, on one scale.
import { changesOf } from "./changes.js";
import { scaled, signed, ticks } from "./numbers.js";
import { canvas, element, message, text } from "./svg.js";

const ROW = 24;
const HEAD = 26;
const LABEL = 150;
const SIDE = 96;
const PATTERNS = { every: "every block", first: "first block", last: "last block", alternate: "every other" };

const EXPLAINED = {
  averages: "Averages over whatever else the trials chose.",
  adjusted: "Adjusted for what else each trial chose: all choices in one least-squares fit, as if their effects add up.",
};

/**
 * effects: the answer of GET effects. modules: {kind: {name, colour}}. factor: module, pattern or reduction.
 * worth: averages or adjusted.
 */
export function drawEffects(place, effects, modules, factor, worth = "averages") {
  const changes = changesOf(effects);
  explain(place, effects, worth);
  const asked = effects.choices.filter((effect) => effect.factor === factor);
  const rows = (worth === "adjusted" ? asked.filter((effect) => effect.adjusted).map((effect) => ({ ...effect, ...effect.adjusted })) : asked).filter((effect) => effect.gain);
  if (!rows.length) return message(place, worth === "adjusted" && asked.some((effect) => effect.gain) ? notDetermined(effects) : tooFew(effects, factor));
  const stages = [...new Set(rows.map((row) => row.stage))];
  const width = Math.max(place.clientWidth, 260);
  const side = width < 480 ? 0 : SIDE;
  const [left, right] = [LABEL, width - side - 12];
  const values = rows.flatMap(({ gain }) => [changes.own(gain.low), changes.own(gain.high)]);
  const low = Math.min(0, ...values);
  const high = Math.max(0, ...values);
  const at = (value) => left + ((value - low) / (high - low || 1)) * (right - left);
  const height = HEAD + ROW * (rows.length + stages.length) + 14;
  const svg = canvas(place, width, height, `What each choice is worth, ${worth}: ${changes.words}, with 95 % intervals`);
  for (const tick of ticks(low, high, 4)) {
    svg.append(element("line", { x1: at(tick), x2: at(tick), y1: HEAD - 4, y2: height - 6, class: tick === 0 ? "zero" : "grid" }));
    svg.append(text(at(tick), 14, tick === 0 ? "0" : signed(tick, places(tick)), { class: "tick", "text-anchor": "middle" }));
  }
  svg.append(text(0, 14, changes.label, { class: "tick" }));
  if (side) svg.append(text(width, 14, "per MMAC", { class: "tick", "text-anchor": "end" }));
  let y = HEAD;
  for (const stage of stages) {
    svg.append(text(0, y + ROW / 2 + 3, `Stage ${stage}`, { class: "tick strong", "dominant-baseline": "central" }));
    svg.append(text(54, y + ROW / 2 + 3, against(rows.find((row) => row.stage === stage)), { class: "tick", "dominant-baseline": "central" }));
    y += ROW;
    for (const row of rows.filter((each) => each.stage === stage)) {
      svg.append(lineOf(row, y + ROW / 2, at, modules, side ? width : 0, changes));
      y += ROW;
    }
  }
}

/** Says what the numbers are, where the panel has a place for it. */
function explain(place, effects, worth) {
  const note = place.parentElement.querySelector(".panel-note");
  if (!note) return;
  const ridge = worth === "adjusted" && effects.adjustment?.method === "ridge" ? " Some choices always came together: ridge was used, and what cannot be told apart is left out." : "";
  note.textContent = EXPLAINED[worth] + ridge;
}

function lineOf(row, y, at, modules, side, changes) {
  const kinds = row.factor === "module" ? row.choice.split("+") : [];
  const colours = kinds.map((kind) => modules[kind]?.colour);
  const pale = row.gain.low <= 0 && row.gain.high >= 0;
  const group = element("g", { class: pale ? "effect pale" : "effect" });
  const [low, middle, high] = [Math.min(changes.own(row.gain.low), changes.own(row.gain.high)), changes.own(row.gain.value), Math.max(changes.own(row.gain.low), changes.own(row.gain.high))].map(at);
  const colour = colours.length === 1 ? `m${colours[0]}` : "plain";
  group.append(text(12, y, label(row, modules), { class: "tick label", "dominant-baseline": "central" }));
  group.append(element("rect", { x: low, y: y - 2, width: Math.max(high - low, 1), height: 4, rx: 2, class: `${colour} whisker` }));
  if (colours.length > 1) colours.slice(0, 2).forEach((each, index) => group.append(element("path", { d: `M${middle} ${y - 6}a6 6 0 0 ${index} 0 12z`, class: `m${each} dot` })));
  else group.append(element("circle", { cx: middle, cy: y, r: 6, class: `${colour} dot` }));
  if (side) group.append(text(side, y, row.gain_per_mmac ? changes.write(row.gain_per_mmac.value, precision(changes.own(row.gain_per_mmac.value))) : "–", { class: "tick", "text-anchor": "end", "dominant-baseline": "central" }));
  const cost = row.extra_macs > 0 ? `, ${scaled(row.extra_macs, "MAC")} more on average` : "";
  group.append(element("title", {}, `Stage ${row.stage}, ${label(row, modules)}: ${changes.write(row.gain.value)} ${changes.label} (95 %: ${changes.range(row.gain)}), ${row.trials} trials against ${row.reference_trials}${cost}`));
  return group;
}

/** Decimals that tell a round value from its neighbours. */
const places = (value) => [0, 1, 2, 3].find((count) => Math.abs(value - Number(value.toFixed(count))) < 1e-9) ?? 4;

const precision = (value) => (Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);

function label(row, modules) {
  if (row.factor === "module") return row.choice.split("+").map((kind) => modules[kind]?.name ?? kind).join(" + ");
  if (row.factor === "reduction") return `r\u00a0=\u00a0${row.choice}`;
  return PATTERNS[row.choice] ?? `blocks ${row.choice}`;
}

function notDetermined(effects) {
  if (!effects.adjustment) return "Too few trials have finished to adjust choices for each other.";
  return "These choices always came together with others, so the trials cannot tell them apart.";
}

const against = (row) => (row.against === "nothing" ? "vs nothing" : "vs others");

function tooFew(effects, factor) {
  const asked = { module: "modules", pattern: "blocks", reduction: "strengths" }[factor];
  if (effects.trials < 10) return "Too few trials have finished to compare choices.";
  return `The trials do not yet compare ${asked}: each side needs five of them.`;
}
