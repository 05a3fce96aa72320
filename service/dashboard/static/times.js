// Times in the zone of who looks: how long ago, as time goes on, and the moment itself where one points.
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
const SECONDS = 20;
const DAY = { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const clock = new Intl.DateTimeFormat(undefined, DAY);
const full = new Intl.DateTimeFormat(undefined, { ...DAY, year: "numeric", timeZoneName: "short" });

export function age(seconds) {
  if (seconds < 5) return "just now";
  const whole = Math.round(seconds);
  const [size, unit] = UNITS.find(([least]) => whole >= least);
  return `${Math.floor(whole / size)} ${unit} ago`;
}

/** Writes every time below `root`: data-clock as the time of day, data-moment in full, the others as their age. */
export function localise(root = document) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    const text = "clock" in time.dataset ? clock.format(moment) : "moment" in time.dataset ? full.format(moment) : age((Date.now() - moment) / 1000);
    if (time.textContent !== text) time.textContent = text;
  }
}

const point = (event) => {
  const time = event.target.closest?.("time[datetime]");
  if (time) time.title = full.format(new Date(time.dateTime));
};
const leave = (event) => event.target.closest?.("time[datetime]")?.removeAttribute("title");

document.addEventListener("pointerover", point);
document.addEventListener("pointerout", leave);
localise();
setInterval(() => document.hidden || localise(), 1000 * SECONDS);
