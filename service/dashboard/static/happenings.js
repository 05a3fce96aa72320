// The list of events: newest first, older ones on demand, times in the user's zone.
import { refresh } from "./live.js";

const part = () => document.getElementById("events");

export async function drawEvents() {
  if (part().dataset.older === "shown") return;
  await refresh(part());
  localise();
}

function localise() {
  const time = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });
  part().querySelectorAll("time[data-clock]").forEach((found) => (found.textContent = time.format(new Date(found.dateTime))));
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-older]");
  if (!button) return;
  const answer = await fetch(button.dataset.older, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const more = new DOMParser().parseFromString(await answer.text(), "text/html");
  part().dataset.older = "shown";
  part().querySelector("ol").append(...more.querySelectorAll("ol.events > li"));
  const next = more.querySelector("[data-older]");
  if (next) button.dataset.older = next.dataset.older;
  else button.remove();
  localise();
});
