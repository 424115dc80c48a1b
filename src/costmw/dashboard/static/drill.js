/** Going into what is pointed at: from a series to its calls, from a bar to its day. */

import { current, go, withFilter } from "./address.js";
import { isoDay } from "./format.js";

/** Only calls with this value; null are those without any. */
export function filterBy(key, value) {
  const filter =
    value === null ? { key, op: "unset", values: [] } : { key, op: "is", values: [value] };
  const others = current().filters.filter((one) => one.key !== key);
  go({ filters: withFilter(filter, others), before: null });
}

/** The span of time at a place of a series; from hours, and from what lies ahead, on to calls. */
export function drillInto({ starts, every }, index) {
  if (index >= starts.length) return;
  if (every === "hour") showCalls();
  else between(starts[index], starts[index + 1] ?? null, every);
}

/** From the day of one moment up to that of another; null for one day or month. */
function between(start, stop, every = "day") {
  const from = isoDay(start);
  const to = stop ? isoDay(stop) : every === "month" ? firstOfNext(from) : dayAfter(from);
  go({ range: "custom", from, to, every: "auto", before: null });
}

/** "2026-11-30" -> "2026-12-01" */
export function dayAfter(day) {
  const moment = new Date(`${day}T00:00:00Z`);
  moment.setUTCDate(moment.getUTCDate() + 1);
  return moment.toISOString().slice(0, 10);
}

/** Bring the calls into view. */
export function showCalls() {
  const calls = document.getElementById("calls");
  calls.scrollIntoView({ block: "start" });
  calls.querySelector("tbody button")?.focus({ preventScroll: true });
}

function firstOfNext(day) {
  const moment = new Date(`${day.slice(0, 7)}-01T00:00:00Z`);
  moment.setUTCMonth(moment.getUTCMonth() + 1);
  return moment.toISOString().slice(0, 10);
}
