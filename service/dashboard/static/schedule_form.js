// A schedule's form: the expression is explained while it is written, in its zone and in that of who writes.
import { patch, post } from "./requests.js";

const QUIET = 250; // ms after the last keystroke
const form = document.getElementById("form");
const field = (name) => form.elements[name];
const text = document.getElementById("text");
const coming = document.getElementById("coming");
const problems = document.getElementById("problems");
const save = document.getElementById("save");
const mine = Intl.DateTimeFormat().resolvedOptions().timeZone;
const key = crypto.randomUUID();
const hookList = document.getElementById("hooks");
const addHook = document.getElementById("add-hook");
const known = JSON.parse(form.dataset.notify ?? "[]");
let chosen = false; // whether a box of "Tell" was touched
let waiting = null;
let running = null;

if (!field("zone").value) field("zone").value = mine || "UTC";
for (const box of form.querySelectorAll("[data-moment]")) if (box.dataset.moment) box.value = onClock(new Date(box.dataset.moment));

/** The local time as <input type="datetime-local"> holds it. */
function onClock(moment) {
  return new Date(moment.getTime() - 60000 * moment.getTimezoneOffset()).toISOString().slice(0, 16);
}

/** What a box says; what it was made from where nobody has changed it, because it shows no seconds. */
function moment(name) {
  const { value, dataset } = field(name);
  if (!value) return null;
  return dataset.moment && value === onClock(new Date(dataset.moment)) ? dataset.moment : new Date(value).toISOString();
}

const number = (name) => (field(name).value === "" ? null : Number(field(name).value));

function line(words) {
  const row = document.createElement("p");
  row.textContent = words;
  return row;
}

async function explain() {
  running?.abort();
  running = new AbortController();
  const asked = { cron: field("cron").value, zone: field("zone").value, user_zone: mine || "UTC", start_at: moment("start_at"), end_at: moment("end_at") };
  try {
    const found = await post("/api/v1/schedules/preview", asked, {}, running.signal);
    const meaning = line(`${found.meaning}, ${found.zone}.`);
    const same = found.zone === asked.user_zone;
    const fires = document.createElement("ol");
    fires.setAttribute("aria-label", "Next times");
    for (const fire of found.fires) {
      const row = document.createElement("li");
      row.textContent = same ? fire.local : `${fire.local} · for you ${fire.yours}`;
      fires.append(row);
    }
    meaning.id = "meaning";
    coming.replaceChildren(meaning, found.fires.length ? fires : line("It never comes."));
    field("cron").setAttribute("aria-invalid", "false");
  } catch (error) {
    if (error.name === "AbortError") return;
    const words = line(error.message);
    words.id = "meaning";
    words.className = "problem";
    coming.replaceChildren(words);
    field("cron").setAttribute("aria-invalid", "true");
  }
}

function targets() {
  const events = [...form.querySelectorAll('[name="events"]:checked')].map((box) => box.value);
  // each may be told of other things: only who touches the boxes makes them the same for all
  const told = (channel, target) => {
    const before = known.find((each) => each.channel === channel && each.target === target);
    return { channel, target, events: before && !chosen ? before.events : events };
  };
  const mails = field("emails").value.split(/[\s,;]+/).filter(Boolean).map((target) => told("email", target));
  const hooks = [...rows()].flatMap((row) => {
    const [target, secret] = [addressOf(row).value.trim(), secretOf(row).value];
    return target ? [{ ...told("webhook", target), ...(secret && { secret }) }] : [];
  });
  return [...mails, ...hooks];
}

const rows = () => hookList.querySelectorAll(".hook");
const addressOf = (row) => row.querySelector("[data-hook]");
const secretOf = (row) => row.querySelector("[data-secret]");

/** Numbers the rows, so that each box and button says which web hook it is of. */
function numberHooks() {
  rows().forEach((row, place) => {
    const name = `web hook ${place + 1}`;
    row.setAttribute("aria-label", `Web hook ${place + 1}`);
    addressOf(row).setAttribute("aria-label", `Address of ${name}`);
    secretOf(row).setAttribute("aria-label", `Secret of ${name}`);
    row.querySelector("[data-remove]").setAttribute("aria-label", `Remove ${name}`);
  });
}

addHook.addEventListener("click", () => {
  addHook.before(document.getElementById("hook-row").content.cloneNode(true));
  numberHooks();
  addressOf([...rows()].at(-1)).focus();
});
hookList.addEventListener("click", (event) => {
  const button = event.target.closest("[data-remove]");
  if (!button) return;
  const row = button.closest(".hook");
  const next = row.nextElementSibling; // another row, or the button that adds one
  row.remove();
  numberHooks();
  (next.querySelector("[data-hook]") ?? next).focus();
});
hookList.addEventListener("input", (event) => {
  if (!("hook" in event.target.dataset)) return;
  const kept = known.some((each) => each.channel === "webhook" && each.target === event.target.value.trim());
  secretOf(event.target.closest(".hook")).placeholder = kept ? "as it is" : "16 characters or more";
});
numberHooks();

async function written() {
  const draft = await post("/live/drafts", { text: text.value });
  if (draft.request === null) throw Object.assign(new Error(draft.problems[0].message), { problems: draft.problems });
  return {
    name: field("name").value, cron: field("cron").value, zone: field("zone").value, template: draft.request,
    overlap: field("overlap").value, catch_up_seconds: number("catch_up_seconds") ?? 0, jitter_seconds: number("jitter_seconds") ?? 0,
    priority: number("priority") ?? 5, keep: number("keep"), start_at: moment("start_at"), end_at: moment("end_at"), notify: targets(),
  };
}

function show(error) {
  const found = error.problems?.length ? error.problems : [{ field: "", message: error.message }];
  problems.replaceChildren(...found.map((problem) => {
    const row = document.createElement("li");
    const choices = problem.choices?.length ? ` Valid: ${problem.choices.slice(0, 20).join(", ")}.` : "";
    row.textContent = `${problem.field ? `${problem.field}: ` : ""}${problem.message}${choices}`;
    return row;
  }));
}

save.addEventListener("click", async () => {
  if (!form.reportValidity()) return;
  save.disabled = true;
  problems.replaceChildren();
  try {
    const body = await written();
    const { schedule, version } = form.dataset;
    const path = "/api/v1/schedules";
    const made = schedule ? await patch(`${path}/${schedule}`, body, { "If-Match": `"${version}"` }) : await post(path, body, { "Idempotency-Key": key });
    location.assign(`/schedules/${made.id}`);
  } catch (error) {
    show(error);
    save.disabled = false;
  }
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", (event) => {
  if (event.target.name === "events") chosen = true;
  if (!["cron", "zone", "start_at", "end_at"].includes(event.target.name)) return;
  clearTimeout(waiting);
  waiting = setTimeout(explain, QUIET);
});
explain();
