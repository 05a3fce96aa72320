// The table of trials: sorted, filtered and paged by the service; the choice is in the address.
import { refresh } from "./live.js";
import { get, set } from "./state.js";

const part = () => document.getElementById("trials");
const search = () => document.getElementById("live").dataset.search;

function url() {
  const query = new URLSearchParams();
  for (const name of ["cols", "sort", "status", "role"]) if (new URLSearchParams(location.search).has(name)) query.set(name, get(name));
  return `/live/searches/${search()}/trials${query.size ? `?${query}` : ""}`;
}

export function controlTrials(after) {
  const show = async (address, changes) => {
    if (changes) set({ ...changes, cursor: "" });
    part().setAttribute("aria-busy", "true");
    try {
      await refresh(part(), address ?? url());
    } catch (error) {
      console.warn(error.message);
    }
    part().removeAttribute("aria-busy");
    after();
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("#trials [data-sort], #trials [data-load]");
    if (!button) return;
    if (button.dataset.sort) show(null, { sort: button.dataset.sort === "-number" ? "" : button.dataset.sort });
    else show(button.dataset.load).then(() => part().scrollIntoView({ block: "start" }));
  });
  document.addEventListener("change", (event) => {
    const { filter, column } = event.target.dataset ?? {};
    if (filter && event.target.closest("#trials")) show(null, { [filter]: event.target.value });
    if (column) {
      const names = [...part().querySelectorAll("[data-column]:checked")].map((box) => box.dataset.column);
      const open = part().querySelector("details.menu");
      const focus = column;
      show(null, { cols: names.join(",") || "none" }).then(() => {
        if (open) part().querySelector("details.menu").open = true;
        part().querySelector(`[data-column="${focus}"]`)?.focus();
      });
    }
  });
}

/** New trials are shown while the first page is. */
export async function refreshTrials() {
  if (part().dataset.paged === "no" && !part().contains(document.activeElement?.closest?.("select, details"))) await refresh(part());
}
