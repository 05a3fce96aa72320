// A question before something that cannot be taken back, or that needs a number.

/** Resolves to the values of the fields once `act` has succeeded with them, or to null when the user goes back. */
export function ask({ title, text, yes, fields = [], act }) {
  const dialog = document.getElementById("ask");
  const part = (name) => dialog.querySelector(`[data-${name}]`);
  dialog.querySelector("h2").textContent = title;
  part("text").textContent = text;
  part("yes").textContent = yes;
  part("refusal").hidden = true;
  part("fields").replaceChildren(...fields.map(({ name, label, value = "", min, step }) => {
    const row = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { name, type: "number", value, min: min ?? 0, step: step ?? "any" });
    row.append(`${label} `, box);
    return row;
  }));
  dialog.showModal();
  return new Promise((done) => {
    const button = part("yes");
    const form = dialog.querySelector("form");
    const finish = (value) => {
      button.removeEventListener("click", proceed);
      form.removeEventListener("keydown", enter);
      dialog.removeEventListener("close", back);
      if (dialog.open) dialog.close();
      done(value);
    };
    const back = () => finish(null);
    const proceed = async () => {
      const values = Object.fromEntries([...dialog.querySelectorAll("input")].filter((box) => box.value !== "").map((box) => [box.name, Number(box.value)]));
      button.disabled = true;
      try {
        await act(values);
        finish(values);
      } catch (error) {
        part("refusal").textContent = error.message;
        part("refusal").hidden = false;
      }
      button.disabled = false;
    };
    const enter = (event) => {
      if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
      event.preventDefault();
      proceed();
    };
    button.addEventListener("click", proceed);
    form.addEventListener("keydown", enter);
    dialog.addEventListener("close", back);
  });
}
