// News of a search as they happen; reconnects by itself from the last event seen, so that nothing is missed.
// Read with fetch, as EventSource would drop every kind of event that it was not told the name of.
import { connected } from "./live.js";

const RETRY = 2000; // ms
const SILENCE = 60_000; // ms; the service sends a heartbeat sooner

/**
 * tell(kind, data) is called for every event, and with "open" for a connection; over(last) once the search has ended.
 * Gives a function that ends it. A hidden tab holds no connection, of which a browser has few for each host.
 */
export function listen(id, after, tell, over) {
  let last = Number(after);
  let current = null;
  let waiting = null;
  let ended = false;

  const open = async () => {
    if (ended || current || document.hidden) return;
    const mine = new AbortController();
    current = mine;
    try {
      const answer = await fetch(`/api/v1/searches/${id}/events?after=${last}`, { headers: { Accept: "text/event-stream" }, signal: mine.signal });
      if (answer.status === 404) return finish();
      if (!answer.ok) throw new Error(`The service answered ${answer.status}.`);
      connected(true);
      tell("open");
      for await (const { event, data, id: number } of messages(answer.body, mine)) {
        if (event === "end") return finish();
        last = Number(number);
        tell(event, JSON.parse(data));
      }
      throw new Error("The stream has ended.");
    } catch (error) {
      current = null;
      if (mine.signal.aborted && mine.signal.reason !== SILENCE) return;
      connected(false);
      waiting = setTimeout(open, RETRY);
    }
  };
  const finish = () => {
    stop();
    over(last);
  };
  const close = () => {
    clearTimeout(waiting);
    current?.abort();
    current = null;
  };
  const seen = () => (document.hidden ? close() : open());
  const stop = () => {
    ended = true;
    document.removeEventListener("visibilitychange", seen);
    close();
  };
  document.addEventListener("visibilitychange", seen);
  open();
  return stop;
}

/** The messages of an event stream, as objects of their fields; gives up on a stream that has fallen silent. */
async function* messages(body, controller) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let silence = null;
  try {
    while (true) {
      clearTimeout(silence);
      silence = setTimeout(() => controller.abort(SILENCE), SILENCE);
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const fields = Object.fromEntries(part.split("\n").filter((line) => line && !line.startsWith(":")).map((line) => line.split(/: ?(.*)/s)));
        if (fields.event) yield fields;
      }
    }
  } finally {
    clearTimeout(silence);
  }
}
