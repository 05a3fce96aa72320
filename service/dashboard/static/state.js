// The state of a page lives in its address: what is at its default is left out, so that links stay short.
const listeners = new Map();

export function get(name, usual = "") {
  return new URLSearchParams(location.search).get(name) ?? usual;
}

/** Writes values into the address without a new entry in the history, and tells who listens. */
export function set(changes, usual = {}) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === "" || value === undefined || value === null || value === usual[name]) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
  for (const name of Object.keys(changes)) listeners.get(name)?.forEach((tell) => tell());
}

export function on(name, tell) {
  listeners.set(name, [...(listeners.get(name) ?? []), tell]);
}

/** Makes a group of buttons (data-segmented) choose the value of a name. */
export function segmented(name, usual) {
  const group = document.querySelector(`[data-segmented="${name}"]`);
  const values = [...group.querySelectorAll("button")].map((button) => button.dataset.value);
  const value = () => (values.includes(get(name, usual)) ? get(name, usual) : usual);
  const show = () => group.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.value === value())));
  group.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) set({ [name]: button.dataset.value }, { [name]: usual });
  });
  on(name, show);
  show();
  return value;
}
