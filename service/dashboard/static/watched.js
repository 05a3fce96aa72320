// A page that is kept as it is now; its part says every how many seconds.
import { keepLooking } from "./live.js";

keepLooking(() => Number(document.getElementById("live").dataset.every));
