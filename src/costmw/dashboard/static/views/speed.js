/** How long calls took: whole, and until something came. */

import { byId } from "../dom.js";
import { counted, duration } from "../format.js";
import { fill, head, number, row } from "../tables.js";

const QUANTILES = ["p50_ms", "p90_ms", "p95_ms", "p99_ms"];

/** Draw the table. */
export function showSpeed({ question, summary: { sums, latency, time_to_first_chunk: first } }) {
  const rows = [line("Whole call", latency)];
  if (first.calls) rows.push(line("First chunk", first));
  fill(byId("speed-table"), rows);
  byId("speed-note").textContent = latency.calls
    ? `${counted(latency.calls, "call")} timed; each figure is within 9%`
    : nothing(sums, question);
}

function nothing({ calls }, { filters }) {
  return calls && filters.length ? "Not kept for these filters." : "No call was timed.";
}

function line(label, quantiles) {
  return row(
    head(label),
    ...QUANTILES.map((name) =>
      number(quantiles[name] === null ? "—" : duration(Math.round(quantiles[name]))),
    ),
  );
}
