/** Whether calls reach the store: a banner for as long as they wait for it. */

import { byId, el, replace, value } from "../dom.js";
import { counted, duration } from "../format.js";

const LONG = 2;

/** Say that records wait, once that takes longer than a commit does; gives the status again. */
export function showRecording(status) {
  const { meter } = status;
  const banner = byId("recording");
  banner.hidden = !meter || meter.waiting_seconds < LONG;
  replace(banner, ...(banner.hidden ? [] : [told(meter)]));
  return status;
}

function told({ waiting, waiting_seconds, dropped, rejected, last_error }) {
  const lost = dropped + rejected;
  return el(
    "span",
    {},
    el("strong", {}, `${counted(waiting, "record")} cannot be stored now`),
    ` and wait${waiting === 1 ? "s" : ""} in the memory of the process that answers, the oldest for `,
    `${duration(Math.round(waiting_seconds * 1000))}. The app goes on. `,
    lost ? `Lost so far: ${counted(lost, "record")}. ` : null,
    last_error ? "The last error: " : null,
    last_error ? value(last_error) : null,
  );
}
