// Small drawings of our own: elements, and texts that know their width.
const SPACE = "http://www.w3.org/2000/svg";

export function element(name, attributes = {}, ...children) {
  const found = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined && value !== null) found.setAttribute(key, value);
  found.append(...children.filter((child) => child !== null && child !== undefined));
  return found;
}

export const text = (x, y, content, attributes = {}) => element("text", { x, y, ...attributes }, content);

/** A drawing as wide as its place; its words are its accessible name. role: "group" where parts of it can be used. */
export function canvas(place, width, height, words, role = "img") {
  const found = element("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role, "aria-label": words, class: "drawing" });
  place.replaceChildren(found);
  return found;
}

export function message(place, words) {
  const told = document.createElement("p");
  told.className = "nothing muted";
  told.textContent = words;
  place.replaceChildren(told);
}

/** Calls back when the width of a place has changed. */
export function onResize(place, draw) {
  let last = place.clientWidth;
  new ResizeObserver(() => {
    if (place.clientWidth !== last) {
      last = place.clientWidth;
      draw();
    }
  }).observe(place);
}
