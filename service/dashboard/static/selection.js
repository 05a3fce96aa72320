// Trials are chosen in one view and stand out in all: by their numbers, in the address as ?sel=3,17.
import { get, set } from "./state.js";

const MOST = 200;
const tellers = [];
let chosen = new Set(get("sel").split(",").filter((text) => /^\d+$/.test(text)).slice(0, MOST).map(Number));
let lit = new Set();

export const isChosen = (number) => chosen.has(number);
export const isLit = (number) => lit.has(number);
export const all = () => [...chosen];
export const anyLit = () => lit.size > 0;

export function toggle(number) {
  const next = new Set(chosen);
  if (!next.delete(number)) next.add(number);
  replace(next);
}

export function add(numbers) {
  replace(new Set([...chosen, ...numbers]));
}

export function clear() {
  replace(new Set());
}

/** Lights trials up while something is pointed at; nothing puts the light out. */
export function light(numbers = []) {
  const next = new Set(numbers);
  if (next.size === lit.size && [...next].every((number) => lit.has(number))) return;
  lit = next;
  tellers.forEach((tell) => tell("lit"));
}

export function onChange(tell) {
  tellers.push(tell);
}

function replace(next) {
  chosen = new Set([...next].slice(0, MOST));
  set({ sel: [...chosen].join(",") });
  tellers.forEach((tell) => tell("chosen"));
}

/** Marks the rows of tables, and lets their boxes choose. */
export function linkRows() {
  const show = () => {
    document.querySelectorAll("[data-number]").forEach((row) => {
      const number = Number(row.dataset.number);
      row.classList.toggle("lit", lit.has(number));
      row.classList.toggle("picked", chosen.has(number));
    });
    document.querySelectorAll("[data-choose]").forEach((box) => (box.checked = chosen.has(Number(box.dataset.choose))));
    const bar = document.getElementById("chosen");
    bar.hidden = chosen.size === 0;
    bar.querySelector("[data-count]").textContent = `${chosen.size} ${chosen.size === 1 ? "trial" : "trials"} chosen`;
  };
  document.addEventListener("change", (event) => {
    if (event.target.dataset?.choose) toggle(Number(event.target.dataset.choose));
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-clear]")) clear();
  });
  document.addEventListener("pointerover", (event) => {
    const row = event.target.closest?.("[data-number]");
    if (row) light([Number(row.dataset.number)]);
    else if (event.target.closest?.("table")) light();
  });
  onChange(show);
  show();
  return show;
}
