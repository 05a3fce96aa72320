// One schedule: kept up to date, run, paused, resumed, tested, deleted.
import { ask } from "./ask.js";
import { keepLooking, look } from "./live.js";
import { patch, post, remove } from "./requests.js";

const SECONDS = 5;
const live = document.getElementById("live");
const path = `/api/v1/schedules/${live.dataset.schedule}`;
let key = crypto.randomUUID();

keepLooking(() => SECONDS);

const change = (enabled) => patch(path, { enabled }, { "If-Match": `"${live.dataset.version}"` });
const ACTS = {
  pause: () => change(false),
  resume: () => change(true),
  test: () => post(`${path}/test`),
  run: async () => {
    await post(`${path}/run`, undefined, { "Idempotency-Key": key });
    key = crypto.randomUUID();
  },
};

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-act]");
  if (!button) return;
  const act = button.dataset.act;
  if (act === "delete") {
    const text = `“${button.dataset.name}” and its history are gone for good. Its searches stay.`;
    const done = await ask({ title: "Delete this schedule?", text, yes: "Delete", act: () => remove(path) });
    if (done !== null) location.assign("/schedules");
    return;
  }
  const trouble = document.getElementById("trouble");
  trouble.hidden = true;
  button.disabled = true;
  try {
    await ACTS[act]();
    await look();
  } catch (error) {
    trouble.textContent = error.message;
    trouble.hidden = false;
  }
  button.disabled = false;
});
