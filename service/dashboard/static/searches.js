// The list of searches: kept up to date while one of them is active, and the ready example.
import { keepLooking } from "./live.js";
import { post } from "./requests.js";

const SECONDS = 3;
const IDLE_SECONDS = 15;

keepLooking(() => (document.getElementById("live").dataset.active === "yes" ? SECONDS : IDLE_SECONDS));

const MOST = 8;
const wanted = new Set();

function showChoice() {
  document.querySelectorAll("[data-compare]").forEach((box) => (box.checked = wanted.has(box.dataset.compare)));
  const place = document.getElementById("compare");
  place.hidden = wanted.size < 2;
  const link = place.querySelector("a");
  link.textContent = `Compare ${wanted.size} searches`;
  link.href = `/compare?${[...wanted].map((id) => `search=${id}`).join("&")}`;
}

document.addEventListener("change", (event) => {
  const id = event.target.dataset?.compare;
  if (id) {
    if (!event.target.checked) wanted.delete(id);
    else if (wanted.size < MOST) wanted.add(id);
    showChoice();
  } else if (event.target.closest?.("#filter select")) event.target.form.requestSubmit();
});

const key = crypto.randomUUID();
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-submit-example]");
  if (!button) return;
  const problem = button.parentElement.querySelector(".problem");
  button.disabled = true;
  problem.hidden = true;
  try {
    const request = await (await fetch("/live/example")).json();
    const search = await post("/api/v1/searches", request, { "Idempotency-Key": key });
    location.assign(`/searches/${search.id}`);
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
    button.disabled = false;
  }
});
