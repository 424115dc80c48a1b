/** What the chart shows of a series: its lines by metric, added up or not, and what lies ahead. */

import { isoDay as dayOf } from "./format.js";
import { valueLabel } from "./labels.js";
import { MEASURES } from "./measures.js";
import { isSome, pixels } from "./money.js";
import { colorOf } from "./palette.js";

const MOST_LINES = 9;
const DASHED = [5, 4];
const DOTTED = [1.5, 3];
const POINTS = [
  "circle",
  "rectRot",
  "triangle",
  "rect",
  "crossRot",
  "star",
  "rectRounded",
  "cross",
  "dash",
];

/**
 * The parts of a chart, the largest first; `at(n)` is what one has in a span of time.
 * @typedef {{label: string, value: string|null, isOther: boolean, color: string,
 *   at: (n: number) => string|number|null, line: object}} Part
 */

/** How a metric can be drawn: what does not add up is drawn as lines. */
export const kindOf = (metric, wanted) => (MEASURES[metric].adds ? wanted : "line");

/**
 * The lines of a series by what they are called; one alone when nothing is grouped.
 * @returns {Part[]}
 */
export function partsOf({ by, lines, other, total }, metric) {
  const measure = MEASURES[metric];
  if (by === null || !lines.length) return [part("All calls", null, "series-1", total, measure)];
  const shown = lines.slice(0, MOST_LINES).map((line) => ({
    ...part(valueLabel(line.value, by), line.value, colorOf(line.value), line, measure),
    canFilter: true,
  }));
  const rest = [...lines.slice(MOST_LINES), ...(other ? [other] : [])];
  if (rest.length && measure.adds) {
    shown.push({
      ...part("Other", null, "other", null, measure),
      at: (n) => measure.add(...rest.map((line) => measure.at(line, n))),
      lines: rest,
    });
  }
  return shown;
}

/** What Chart.js is given; `labels` has a text for every span, those ahead too. */
export function datasetsOf(series, { metric, chart }, anomalies) {
  const kind = kindOf(metric, chart);
  const parts = partsOf(series, metric);
  const steps = series.starts.length;
  const run = kind === "cumulative" ? accumulated : (values) => values;
  const drawn = parts.flatMap((one, n) => linesOf(one, n, steps, metric, kind, run));
  if (metric === "cost") {
    if (hasPrevious(series)) {
      drawn.push({
        label: "previous",
        type: "line",
        color: "muted",
        dash: DASHED,
        values: run(series.previous.map(pixels)),
      });
    }
    drawn.push(...ahead(series, kind), ...markers(series, kind, anomalies));
  }
  return drawn;
}

/** Whether anything was spent in the time that is compared with. */
export const hasPrevious = ({ previous }) => previous?.some(isSome) ?? false;

/** The days ahead that have a place of their own: the rest of today belongs to today's. */
export const daysAhead = ({ starts, forecast }, metric) =>
  metric === "cost" ? forecast.filter((day) => !isToday(starts, day)) : [];

const isToday = (starts, { start }) => dayOf(start) === dayOf(starts.at(-1));

/** From where to where the forecast of each span may go; null for those that are past. */
export function bandOf(series, { metric, chart }) {
  if (metric !== "cost" || kindOf(metric, chart) === "cumulative") return [];
  return placed(series, ({ low_usd: low, high_usd: high }, spent) => [
    spent + pixels(low),
    spent + pixels(high),
  ]);
}

/** For every span what `read` makes of its forecast and of what was spent in it already. */
function placed(series, read) {
  const { starts, forecast, total } = series;
  const today = forecast.find((day) => isToday(starts, day));
  const last = starts.length - 1;
  const spent = pixels(MEASURES.cost.at(total, last));
  return [
    ...starts.map((_, n) => (n === last && today ? read(today, spent) : null)),
    ...daysAhead(series, "cost").map((day) => read(day, 0)),
  ];
}

function part(label, value, color, line, measure) {
  const lines = [line];
  return { label, value, color, lines, canFilter: false, at: (n) => measure.at(line, n) };
}

function linesOf({ label, color, lines, at }, n, steps, metric, kind, run) {
  const measure = MEASURES[metric];
  const all = [...Array(steps).keys()].map((step) => measure.pixels(at(step)));
  if (kind !== "stack") {
    const filled = kind === "cumulative";
    return [
      { label, color, type: "line", values: run(all), filled, point: POINTS[n % POINTS.length] },
    ];
  }
  const isEstimated = metric === "cost" && lines.some((one) => one.estimated_cost_usd.some(isSome));
  if (!isEstimated) return [{ label, color, type: "bar", values: all }];
  const guessed = all.map((_, step) =>
    lines.reduce((total, one) => total + pixels(one.estimated_cost_usd[step]), 0),
  );
  return [
    { label, color, type: "bar", values: all.map((one, step) => one - guessed[step]) },
    { label: `${label}, estimated`, color, type: "bar", values: guessed, hatched: true },
  ];
}

function ahead(series, kind) {
  if (!series.forecast.length) return [];
  const shared = { label: "forecast", color: "muted" };
  if (kind === "stack") {
    const values = placed(series, (day) => pixels(day.expected_usd));
    return [{ ...shared, type: "bar", hatched: true, values }];
  }
  const past = series.starts.map((_, n) => pixels(MEASURES.cost.at(series.total, n)));
  const whole = placed(series, (day, spent) => spent + pixels(day.expected_usd));
  const all = whole.map((expected, n) => expected ?? past[n]);
  const first = whole.findIndex((expected) => expected !== null) - 1;
  const drawn = kind === "line" ? all : accumulated(all);
  const values = drawn.map((one, n) => (n < first ? null : one));
  return [{ ...shared, type: "line", dash: DOTTED, values }];
}

function markers({ starts, total }, kind, anomalies) {
  if (kind === "cumulative" || !anomalies.length) return [];
  const marked = new Set(anomalies.map((one) => placeOf(starts, one.start)));
  const values = starts.map((_, n) => (marked.has(n) ? pixels(MEASURES.cost.at(total, n)) : null));
  return [{ label: "anomaly", type: "line", color: "bad-fill", marker: true, values }];
}

/** The span of time that a moment is in; -1 when it is before all of them. */
export function placeOf(starts, moment) {
  const at = Date.parse(moment);
  return starts.findLastIndex((start) => Date.parse(start) <= at);
}

function accumulated(values) {
  let total = 0;
  return values.map((one) => (total += one ?? 0));
}
