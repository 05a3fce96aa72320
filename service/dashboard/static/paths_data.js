// The trials behind the parallel coordinates, and which of them have something at a site.
import { load } from "./data.js";

let found = null;

export async function paths(fresh = false) {
  const live = document.getElementById("live");
  if (fresh || !found) found = load(`/live/searches/${live.dataset.search}/paths`);
  return found;
}

/** Numbers of the trials that have `kind` ("" for any) in a block of a stage; null: at its end. */
export async function numbersAt(stage, block, kind) {
  const { stages, fills, paths: rows, blocks } = await paths();
  const place = stages.indexOf(stage);
  return rows.filter(([, chosen]) => {
    const fill = fills[chosen[place]];
    return fill.kinds.length && (kind === "" || fill.kinds.includes(kind)) && covers(fill.pattern, block, blocks[place]);
  }).map(([number]) => number);
}

function covers(pattern, block, blocks) {
  if (block === null) return pattern === "";
  const named = { every: true, first: block === 1, last: block === blocks, alternate: block % 2 === 1 };
  return named[pattern] ?? pattern.split(",").includes(String(block));
}
