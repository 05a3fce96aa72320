// One search's page: events bring news, the server renders them, the plot draws the front.
import { drawFront, highlight } from "./front.js";
import { connected, refresh } from "./live.js";
import { post } from "./requests.js";

const KINDS = ["search.created", "search.status", "search.command", "search.progress", "search.changed", "trial.started", "trial.epoch", "trial.finished"];
const QUIET = 350; // ms between two updates
const RETRY = 2000;

const live = () => document.getElementById("live");
const id = live().dataset.search;
let last = live().dataset.event;
let pending = null;

async function update() {
  pending = null;
  try {
    await refresh();
    await drawFront(id);
    connected(true);
  } catch {
    connected(false);
    schedule(RETRY);
  }
}

function schedule(delay = QUIET) {
  pending ??= setTimeout(update, delay);
}

function listen() {
  const source = new EventSource(`/api/v1/searches/${id}/events?after=${last}`);
  const news = (event) => {
    last = event.lastEventId || last;
    schedule();
  };
  KINDS.forEach((kind) => source.addEventListener(kind, news));
  source.addEventListener("end", () => {
    source.close();
    schedule();
    waitForMore();
  });
  source.addEventListener("open", () => {
    connected(true);
    schedule();
  });
  source.addEventListener("error", () => {
    connected(false);
    source.close();
    setTimeout(listen, RETRY);
  });
}

/** A finished search may be extended later: look again when the user comes back to the page. */
function waitForMore() {
  const look = async () => {
    if (document.hidden) return;
    await update();
    if (Number(live().dataset.event) > Number(last)) {
      document.removeEventListener("visibilitychange", look);
      listen();
    }
  };
  document.addEventListener("visibilitychange", look);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-command]");
  if (!button || (button.dataset.confirm && !confirm(button.dataset.confirm))) return;
  button.disabled = true;
  const problem = document.querySelector("[data-problem]");
  problem.hidden = true;
  try {
    await post(`/api/v1/searches/${id}/${button.dataset.command}`);
    schedule(0);
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
    button.disabled = false;
  }
});

document.addEventListener("pointerover", (event) => highlight(event.target.closest?.("tr[data-trial]")?.dataset.trial));

await drawFront(id);
if (["succeeded", "failed", "cancelled"].includes(live().dataset.status)) waitForMore();
else listen();
