// What a user may do with a search: pause, resume, cancel, extend, retry, delete. Each is one request.
import { ask } from "./ask.js";
import { remove, post } from "./requests.js";

const QUESTIONS = {
  pause: () => ({ title: "Pause this search?", text: "Trials that run may end their epoch; they go on from there when you resume.", yes: "Pause" }),
  cancel: () => ({ title: "Cancel this search?", text: "It stops for good. What has finished is kept.", yes: "Cancel the search" }),
  retry: ({ failed }) => ({ title: "Retry what has failed?", text: `${failed} failed ${failed === "1" ? "trial is" : "trials are"} queued again.`, yes: "Retry" }),
  delete: ({ name }) => ({ title: "Delete this search?", text: `“${name}” with its trials, curves and events is gone for good.`, yes: "Delete" }),
  extend: ({ trials }) => ({
    title: "Extend this search", text: "New totals; what is left empty stays as it is.", yes: "Extend",
    fields: [
      { name: "trials", label: "Trials", value: 2 * Number(trials), min: Number(trials) + 1, step: 1 },
      { name: "hours", label: "Hours" }, { name: "gpu_hours", label: "GPU hours" },
    ],
  }),
};

/** leave(yes) is told before a search is deleted, and leave(no) when that was refused; after(act) once it is done. */
export function controlSearch(id, leave, after) {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-act]");
    if (!button) return;
    const act = button.dataset.act;
    const path = `/api/v1/searches/${id}`;
    const send = (values) => (act === "delete" ? forget(path, leave) : post(`${path}/${act}`, act === "extend" ? values : undefined));
    if (act === "resume") {
      button.disabled = true;
      await send().catch((error) => console.warn(error.message));
      after();
      return;
    }
    const done = await ask({ ...QUESTIONS[act](button.dataset), act: send });
    if (done === null) return;
    if (act === "delete") location.assign("/");
    else after(act);
  });
}

async function forget(path, leave) {
  leave(true);
  try {
    await remove(path);
  } catch (error) {
    leave(false);
    throw error;
  }
}
