// Keeps a part of the page as the server renders it, without a reload: only what differs is touched.
import { localise } from "./times.js";

/** Fetches the fragment of a part (its data-url) and merges it. Throws when the service does not answer with it. */
export async function refresh(part = document.getElementById("live"), url = part.dataset.url) {
  const answer = await fetch(url, { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(`${answer.status}`);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(part.id);
  if (!fresh) throw new Error("no fragment");
  localise(fresh);
  merge(part, fresh);
  return part;
}

function merge(old, fresh) {
  if (old.isEqualNode(fresh) || "static" in old.dataset) return;
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  if (fresh.children.length === 0 || old.children.length === 0) {
    if (old.innerHTML !== fresh.innerHTML) old.replaceChildren(...fresh.childNodes);
  } else if (fresh.firstElementChild.dataset.key) {
    mergeKeyed(old, fresh);
  } else if (sameShape(old, fresh)) {
    [...fresh.children].forEach((child, index) => mergeChild(old.children[index], child));
  } else {
    mergeSections(old, fresh);
  }
}

function mergeChild(old, fresh) {
  const plain = old.childElementCount === 0 || old instanceof SVGElement || hasText(old) || hasText(fresh);
  if (old.isEqualNode(fresh) || old.dataset.static !== undefined) return;
  if (plain) old.replaceWith(fresh.cloneNode(true));
  else merge(old, fresh);
}

function hasText(element) {
  return [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
}

function sameShape(old, fresh) {
  const tags = (element) => [...element.children].map((child) => child.tagName + (child.className.baseVal ?? child.className)).join();
  return tags(old) === tags(fresh);
}

/** Children came or went: those that must stay (data-static) are kept, the others replaced. */
function mergeSections(old, fresh) {
  const kept = [...old.querySelectorAll("[data-static]")];
  for (const place of fresh.querySelectorAll("[data-static]")) {
    const mine = kept.shift();
    if (mine) place.replaceWith(mine);
  }
  old.replaceChildren(...fresh.childNodes);
}

/** Rows are known by data-key: kept ones move, new ones light up once. */
function mergeKeyed(old, fresh) {
  const mine = new Map([...old.children].map((child) => [child.dataset.key, child]));
  const rows = [...fresh.children].map((row) => {
    const known = mine.get(row.dataset.key);
    if (!known) row.classList.add("fresh");
    else if (known.isEqualNode(row) || sameWithoutState(known, row)) return known;
    return row;
  });
  if (rows.length !== old.children.length || rows.some((row, index) => row !== old.children[index])) old.replaceChildren(...rows);
}

function sameWithoutState(known, row) {
  const plain = known.cloneNode(true);
  plain.classList.remove("fresh", "lit", "picked");
  if (!plain.classList.length) plain.removeAttribute("class");
  return plain.isEqualNode(row);
}

/** Refreshes the page's part, and tells when the connection is lost. */
export async function look() {
  try {
    await refresh();
    connected(true);
  } catch {
    connected(false);
  }
}

/** Looks again every so many seconds (a function says how many), while the page is seen. */
export function keepLooking(seconds) {
  setTimeout(async () => {
    if (!document.hidden) await look();
    keepLooking(seconds);
  }, 1000 * seconds());
}

/** Shows or hides that the connection is lost. */
export function connected(yes) {
  document.getElementById("connection").hidden = yes;
}
