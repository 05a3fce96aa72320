// What stands beside a point: rendered by the service, fetched once.
const CACHE = new Map();
let wanted = null;

export async function showTip(search, number, place) {
  wanted = number;
  if (!CACHE.has(number)) {
    const answer = await fetch(`/live/searches/${search}/tips/${number}`, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    CACHE.set(number, new DOMParser().parseFromString(await answer.text(), "text/html").body);
  }
  if (wanted !== number) return;
  const tip = document.getElementById("tip");
  tip.replaceChildren(...CACHE.get(number).cloneNode(true).childNodes);
  tip.hidden = false;
  const { x, y } = place();
  const frame = tip.offsetParent.getBoundingClientRect();
  const left = x + 16 + tip.offsetWidth > frame.width ? x - 16 - tip.offsetWidth : x + 16;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(y - tip.offsetHeight / 2, frame.height - tip.offsetHeight - 4))}px`;
}

export function hideTip() {
  wanted = null;
  document.getElementById("tip").hidden = true;
}
