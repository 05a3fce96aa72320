// A new search: form and text say the same, checked at every keystroke, with what it would mean below.
import { post } from "./requests.js";

const QUIET = 250; // ms after the last keystroke
const text = document.getElementById("text");
const form = document.getElementById("form");
const preview = document.getElementById("preview");
const problems = document.getElementById("problems");
const submit = document.getElementById("submit");
const refusal = document.getElementById("refusal");
let request = {};
let waiting = null;
let running = null;
let key = crypto.randomUUID();

const steps = (path) => path.split(".");
const at = (path) => steps(path).reduce((value, step) => value?.[step], request);

function put(path, value) {
  const names = steps(path);
  const last = names.pop();
  let place = request;
  for (const name of names) {
    if (typeof place[name] !== "object" || place[name] === null) place[name] = {};
    place = place[name];
  }
  if (value === undefined) delete place[last];
  else place[last] = value;
  for (let depth = names.length; depth > 0; depth -= 1) {
    const parent = names.slice(0, depth - 1).reduce((found, name) => found[name], request);
    if (Object.keys(parent[names[depth - 1]]).length === 0) delete parent[names[depth - 1]];
  }
}

/** Shows the request in the form; what a form cannot say stays in the text and is counted beside it. */
function fill() {
  for (const field of form.querySelectorAll("[data-path]")) {
    const value = at(field.dataset.path);
    const list = [value ?? []].flat();
    if (field.dataset.kind === "list") field.checked = list.includes(field.value);
    else if (field.dataset.kind === "numbers") field.checked = list.includes(Number(field.value));
    else if (field.dataset.kind === "flag") field.checked = value === true;
    else if (field.dataset.kind === "named") field.value = value?.name ?? value ?? ""; // options stay in the text
    else if (document.activeElement !== field) field.value = value ?? (field.tagName === "SELECT" ? field.value : "");
  }
  for (const note of form.querySelectorAll("[data-further]")) {
    const known = new Set([...form.querySelectorAll(`[data-path="${note.dataset.further}"]`)].map((field) => field.value));
    const more = [at(note.dataset.further) ?? []].flat().filter((item) => typeof item !== "string" || !known.has(item));
    note.hidden = more.length === 0;
    note.textContent = `and ${more.length} written in the text: ${more.map((item) => JSON.stringify(item)).join(", ")}`;
  }
}

function read(field) {
  const { path, kind } = field.dataset;
  if (kind === "text") return put(path, field.value);
  if (kind === "named") return put(path, field.value || undefined);
  if (kind === "number") return put(path, field.value === "" ? undefined : Number(field.value));
  if (kind === "flag") return put(path, field.checked || undefined);
  const value = kind === "numbers" ? Number(field.value) : field.value;
  const list = [at(path) ?? []].flat().filter((item) => item !== value);
  if (field.checked) list.push(value);
  if (kind === "numbers") list.sort((a, b) => a - b);
  put(path, list);
}

/** First whether it is valid, at once; then what it would mean, which the service may have to count. */
async function check(body) {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  preview.setAttribute("aria-busy", "true");
  try {
    const found = await post("/live/drafts", body, {}, mine.signal);
    if (found.request && typeof found.request === "object") request = found.request;
    if ("request" in body) text.value = found.text;
    else if (found.request) fill();
    show(found.problems);
    if (found.problems.length) return;
    const counted = await post("/live/drafts/preview", request, {}, mine.signal);
    show(counted.problems);
    if (counted.preview) preview.replaceChildren(...new DOMParser().parseFromString(counted.preview, "text/html").body.childNodes);
  } catch (error) {
    if (error.name === "AbortError") return;
    show([{ field: "", message: error.message, choices: [] }]);
  }
  if (mine.signal.aborted) return;
  preview.setAttribute("aria-busy", "false");
  document.body.dataset.checked = String(Number(document.body.dataset.checked ?? 0) + 1);
}

function show(found) {
  problems.replaceChildren(...found.map(told));
  text.setAttribute("aria-invalid", String(found.length > 0));
  submit.disabled = found.length > 0;
  preview.classList.toggle("stale", found.length > 0);
}

function told(problem) {
  const row = document.createElement("li");
  if (problem.field) {
    const name = document.createElement("code");
    name.textContent = problem.field;
    row.append(name, " ");
  }
  row.append(problem.message);
  if (problem.choices.length) {
    const choices = document.createElement("span");
    choices.className = "muted";
    choices.textContent = ` Valid: ${problem.choices.slice(0, 30).join(", ")}${problem.choices.length > 30 ? " …" : ""}`;
    row.append(choices);
  }
  return row;
}

function soon(body) {
  submit.disabled = true;
  key = crypto.randomUUID();
  clearTimeout(waiting);
  waiting = setTimeout(() => check(body()), QUIET);
}

text.addEventListener("input", () => soon(() => ({ text: text.value })));
form.addEventListener("input", (event) => {
  if (!event.target.dataset.path) return;
  read(event.target);
  soon(() => ({ request }));
});
form.addEventListener("submit", (event) => event.preventDefault());
submit.addEventListener("click", async () => {
  submit.disabled = true;
  refusal.hidden = true;
  try {
    const search = await post("/api/v1/searches", request, { "Idempotency-Key": key });
    location.assign(`/searches/${search.id}`);
  } catch (error) {
    refusal.textContent = error.message;
    refusal.hidden = false;
    submit.disabled = false;
  }
});
check({ text: text.value });
