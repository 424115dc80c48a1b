/** What the chart says of a span of time, in words: beside the pointer, and read out. */

import { daysAhead, kindOf, partsOf, placeOf } from "./drawing.js";
import { counted, hour, longDay, month, percent } from "./format.js";
import { MEASURES } from "./measures.js";
import { change, exactUsd, isSome, signedUsd, usd } from "./money.js";

const WHEN = {
  today: "today",
  "7d": "in the last 7 days",
  "30d": "in the last 30 days",
  "90d": "in the last 90 days",
  "12m": "in the last 12 months",
  month: "this month",
  "last-month": "last month",
};

/** The name of a span: an hour, a day or a month. */
export function momentOf(series, n) {
  const { starts, every } = series;
  const start = starts[n] ?? daysAhead(series, "cost")[n - starts.length].start;
  if (every === "month") return month(start);
  return every === "hour" ? `${longDay(start)}, ${hour(start)}` : longDay(start);
}

/** All of it, for `showTip`: with rows from the dearest down. */
export function toldOf({ series, anomalies }, view, n) {
  const title = momentOf(series, n);
  if (n >= series.starts.length)
    return expected(title, daysAhead(series, "cost")[n - series.starts.length]);
  const measure = MEASURES[view.metric];
  const total = measure.at(series.total, n);
  const parts = partsOf(series, view.metric);
  const rows = parts
    .map(({ label, color, at }) => ({ label, color, amount: at(n) }))
    .filter(({ amount }) => amount !== null && measure.pixels(amount) > 0)
    .sort((a, b) => measure.compare(a.amount, b.amount))
    .map(({ label, color, amount }) => ({
      label,
      color,
      text: measure.exact(amount),
      share: measure.adds ? measure.share(amount, total) : null,
    }));
  return {
    title,
    total: total === null ? null : measure.exact(total),
    rows:
      parts.length > 1 || view.metric !== "cost"
        ? rows
        : rows.filter(({ share }) => share === null),
    notes: notes(series, anomalies, view, n, total),
  };
}

/** The same in one sentence. */
export function spoken({ title, total, rows, notes }) {
  const parts = rows.map(({ label, text, share }) =>
    share === null ? `${label} ${text}` : `${label} ${text}, ${percent(share)}`,
  );
  return [`${title}: ${total ?? "nothing"}`, ...parts, ...notes].join("; ");
}

/** What the whole chart comes to. */
export function summed({ series, summary: { sums, previous }, question }, view) {
  const measure = MEASURES[view.metric];
  const now = measure.of(sums);
  const when = WHEN[question.range] ?? "in these dates";
  if (now === null || measure.pixels(now) === 0) return `Nothing ${when}.`;
  const before = previous ? measure.of(previous) : null;
  const changed = measure.isMoney && change(now, before);
  const most = highest(series, measure);
  return [
    `${measure.write(now)}${measure.adds ? "" : " on average"} ${when}`,
    changed?.direction
      ? `, ${changed.text} ${changed.direction > 0 ? "more" : "less"} than ${measure.write(before)} before`
      : "",
    most === null
      ? "."
      : `. The most: ${momentOf(series, most)} with ${measure.write(measure.at(series.total, most))}.`,
  ].join("");
}

function highest({ starts, total }, measure) {
  let best = null;
  starts.forEach((_, n) => {
    const amount = measure.at(total, n);
    if (amount === null) return;
    if (best === null || measure.compare(amount, measure.at(total, best)) < 0) best = n;
  });
  return best;
}

function soFar(series, view, n) {
  const measure = MEASURES[view.metric];
  const all = [...Array(n + 1).keys()].map((step) => measure.at(series.total, step));
  return measure.exact(measure.add(...all));
}

const isKnown = (text) => text !== null && text !== undefined;

function expected(title, { expected_usd, low_usd, high_usd }) {
  return {
    title,
    total: usd(expected_usd),
    rows: [],
    notes: [`Forecast; 8 times in 10 between ${usd(low_usd)} and ${usd(high_usd)}`],
  };
}

function notes(series, anomalies, view, n, total) {
  const found = [];
  if (view.metric === "cost") {
    const guessed = series.total.estimated_cost_usd[n];
    if (isSome(guessed)) found.push(`of it ${exactUsd(guessed)} estimated`);
    const before = series.previous?.[n];
    if (isKnown(before) && view.compare !== "none") {
      const changed = change(total, before);
      const sign = changed && changed.direction < 0 ? "−" : "+";
      found.push(
        `${usd(before)} in the period before${changed ? ` (${sign}${changed.text})` : ""}`,
      );
    }
  }
  if (kindOf(view.metric, view.chart) === "cumulative")
    found.push(`${soFar(series, view, n)} so far`);
  if (view.metric !== "calls") found.push(counted(series.total.calls[n], "call"));
  for (const one of anomalies) {
    if (placeOf(series.starts, one.start) === n)
      found.push(`Unusual: ${signedUsd(one.excess_usd)}. ${one.text}`);
  }
  return found;
}
