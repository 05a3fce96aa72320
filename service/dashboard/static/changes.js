// Gains (positive where better) as changes of the quality that they are about: in its own unit and with its own sign.
import { signed } from "./numbers.js";

/** about: {title, goal, unit} of a quality, "" being the unit of a fraction. */
export function changesOf({ title, goal, unit }) {
  const scale = (unit ? 1 : 100) * (goal === "max" ? 1 : -1);
  const label = unit || "points";
  const digits = unit ? 3 : 2;
  const own = (gain) => scale * gain;
  const write = (gain, places = digits) => signed(own(gain), places);
  return {
    label, own, write, digits,
    noun: goal === "max" ? "gain" : "change",
    words: `${title.charAt(0).toLowerCase()}${title.slice(1)} in ${label}${goal === "min" ? ", less is better" : ""}`,
    /** The lower end first. */
    range: ({ low, high }) => (scale > 0 ? [low, high] : [high, low]).map((end) => write(end)).join(" to "),
  };
}
