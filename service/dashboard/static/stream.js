// News of a search as they happen; reconnects by itself from the last event seen, so that nothing is missed.
import { connected } from "./live.js";

const KINDS = ["search.created", "search.status", "search.command", "search.progress", "search.changed", "trial.started", "trial.epoch", "trial.finished", "checkpoint.failed", "checkpoint.corrupt", "trial.resumed"];
const RETRY = 2000; // ms

/** tell(kind) is called for every event; over() once the search has ended. */
export function listen(id, after, tell, over) {
  let last = after;
  const open = () => {
    const source = new EventSource(`/api/v1/searches/${id}/events?after=${last}`);
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => {
        last = event.lastEventId || last;
        tell(kind);
      });
    }
    source.addEventListener("open", () => {
      connected(true);
      tell("open");
    });
    source.addEventListener("end", () => {
      source.close();
      over(last);
    });
    source.addEventListener("error", () => {
      connected(false);
      source.close();
      setTimeout(open, RETRY);
    });
  };
  open();
}
