// The list of schedules as it is now.
import { connected, refresh } from "./live.js";

const SECONDS = 10;

async function tick() {
  if (!document.hidden) {
    try {
      await refresh();
      connected(true);
    } catch {
      connected(false);
    }
  }
  setTimeout(tick, 1000 * SECONDS);
}
setTimeout(tick, 1000 * SECONDS);
