/** Days and hours that cost far more than usual, why, and what to look at. */

import { current, go, withFilter } from "../address.js";
import { byId, el, replace, value } from "../dom.js";
import { dayAfter } from "../drill.js";
import { hour, isoDay, longDay } from "../format.js";
import { exactUsd, signedUsd } from "../money.js";

/** Draw the list. */
export function showAnomalies({ anomalies }) {
  const nothing = el("li", { class: "nothing" }, "Nothing unusual in this time.");
  replace(byId("anomalies"), ...(anomalies.length ? anomalies.map(item) : [nothing]));
}

function item(anomaly) {
  const { start, every, expected_usd: expected, cost_usd: cost, excess_usd: excess } = anomaly;
  const when = every === "hour" ? `${longDay(start)}, ${hour(start)}` : longDay(start);
  const onclick = () => lookAt(anomaly);
  const exact = `${exactUsd(cost)}, ${exactUsd(expected)} expected`;
  return el(
    "li",
    {},
    el(
      "div",
      { class: "line" },
      el(
        "button",
        { type: "button", class: "link", "data-key": `anomaly ${start}`, onclick },
        when,
      ),
      el("strong", { class: "over", title: exact }, signedUsd(excess)),
    ),
    el("div", { class: "muted" }, value(anomaly.text)),
  );
}

/** The day of it, and the calls that caused it. */
function lookAt({ start, cause }) {
  const from = isoDay(start);
  const { filters } = current();
  const filter =
    cause &&
    (cause.value === null
      ? { key: cause.by, op: "unset", values: [] }
      : { key: cause.by, op: "is", values: [cause.value] });
  go({
    range: "custom",
    from,
    to: dayAfter(from),
    every: "auto",
    before: null,
    filters: filter
      ? withFilter(
          filter,
          filters.filter((one) => one.key !== filter.key),
        )
      : filters,
  });
}
