// The list of events: newest first, older ones on demand.
import { refresh } from "./live.js";
import { localise } from "./times.js";

const part = () => document.getElementById("events");

export async function drawEvents() {
  if (part().dataset.older === "shown") return;
  await refresh(part());
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
  localise(part());
});
