/** The chart: cost or another metric over time, by what is chosen; points lead to calls. */

import { current, go } from "../address.js";
import { draw, point } from "../charts.js";
import { el, byId, hidden, press, replace, swatch, value } from "../dom.js";
import { bandOf, datasetsOf, daysAhead, hasPrevious, kindOf, partsOf } from "../drawing.js";
import { drillInto, filterBy } from "../drill.js";
import { compact, day, hour, month } from "../format.js";
import { keyLabel, METRICS } from "../labels.js";
import { MEASURES } from "../measures.js";
import { isSome } from "../money.js";
import { assign } from "../palette.js";
import { head, fill, number, row } from "../tables.js";
import { showTip } from "../tip.js";
import { momentOf, spoken, summed, toldOf } from "../trend_text.js";

const plot = byId("trend-plot");
const canvas = byId("trend-chart");
const tip = byId("trend-tip");

/** What is shown now, for the pointer and the keys. */
let shown = null;
let at = null;

/** Draw the chart, its legend and its table. */
export function showTrend(overview) {
  const { series, anomalies, question } = overview;
  const view = { ...current(), metric: question.metric };
  assign(
    series.by,
    series.lines.map((line) => line.value),
  );
  shown = { series, anomalies, view, overview };
  if (at !== null && at >= spans()) at = null;
  const what = METRICS[view.metric];
  byId("trend-title").textContent = series.by ? `${what} by ${keyLabel(series.by)}` : what;
  showControls(view);
  showLegend();
  byId("trend-summary").textContent = summed(overview, view);
  plot.setAttribute("aria-valuemax", String(spans() - 1));
  plot.setAttribute(
    "aria-label",
    `${byId("trend-title").textContent}, chart; arrow keys move along`,
  );
  describe();
  showTable();
  void draw(canvas, {
    labels: labels(series),
    datasets: datasetsOf(series, view, anomalies),
    isStacked: kindOf(view.metric, view.chart) !== "line",
    tick: ticks(MEASURES[view.metric]),
    band: bandOf(series, view),
    hover,
    choose,
  });
}

const spans = () => shown.series.starts.length + daysAhead(shown.series, shown.view.metric).length;

function labels(series) {
  const { starts, every } = series;
  const short = { hour, day, month: (start) => month(start).replace(/(\w{3})\w* \d\d/, "$1 ’") }[
    every
  ];
  const ahead = daysAhead(series, shown.view.metric).map((one) => one.start);
  return [...starts, ...ahead].map(short);
}

function showControls({ metric, chart }) {
  press(byId("metric"), metric);
  press(byId("chart-kind"), kindOf(metric, chart));
  for (const button of byId("chart-kind").querySelectorAll("button")) {
    button.disabled = !MEASURES[metric].adds && button.value !== "line";
  }
}

function showLegend() {
  const { series, view } = shown;
  const parts = partsOf(series, view.metric).map((part) =>
    el("li", {}, part.canFilter ? link(part, series.by) : entry(part)),
  );
  replace(byId("trend-legend"), ...parts);
  const signs = view.metric === "cost" ? signsOf(shown) : [];
  replace(
    byId("trend-signs"),
    ...signs.map(([kind, text]) =>
      el("li", {}, el("span", { class: `sign ${kind}`, "aria-hidden": "true" }), text),
    ),
  );
}

function signsOf({ series, view, anomalies }) {
  const kind = kindOf(view.metric, view.chart);
  const isEstimated = kind === "stack" && series.total.estimated_cost_usd.some(isSome);
  return [
    isEstimated ? ["hatched", "estimated"] : null,
    hasPrevious(series) ? ["dashed", "previous period"] : null,
    series.forecast.length ? [kind === "stack" ? "ahead" : "dotted", "forecast"] : null,
    anomalies.length && kind !== "cumulative" ? ["anomaly", "unusual"] : null,
  ].filter(Boolean);
}

const entry = ({ label, color }) => el("span", {}, swatch(color), value(label, { class: "name" }));

function link(part, by) {
  const onclick = () => filterBy(by, part.value);
  return el(
    "button",
    {
      type: "button",
      class: "quiet",
      title: part.label,
      "data-key": `legend ${part.label}`,
      onclick,
    },
    swatch(part.color),
    hidden("Only "),
    value(part.label, { class: "name" }),
  );
}

/** The same as the chart, in numbers; made only when somebody looks. */
function showTable() {
  const details = byId("trend-details");
  if (!details.open) return;
  const { series, view } = shown;
  const measure = MEASURES[view.metric];
  const parts = partsOf(series, view.metric);
  const table = byId("trend-table");
  const isSplit = parts.length > 1 || parts[0].canFilter;
  replace(
    table.tHead,
    row(
      el("th", { scope: "col" }, { hour: "Hour", day: "Day", month: "Month" }[series.every]),
      el("th", { scope: "col", class: "number" }, "Total"),
      ...(isSplit ? parts : []).map(({ label }) =>
        el("th", { scope: "col", class: "number" }, value(label, { class: "name", title: label })),
      ),
    ),
  );
  fill(
    table,
    series.starts
      .map((start, n) =>
        row(
          head(momentOf(series, n)),
          number(measure.exact(measure.at(series.total, n))),
          ...(isSplit ? parts : []).map((part) => number(measure.exact(part.at(n)))),
        ),
      )
      .reverse(),
  );
}

/** Digits that the steps beside the axis need. */
const ticks = (measure) =>
  function (amount, _, all) {
    if (!measure.isMoney) return compact(amount);
    const step = all.length > 1 ? all[1].value - all[0].value : 1;
    const places = Number.isInteger(step) ? 0 : Math.max(2, Math.ceil(-Math.log10(step) - 1e-9));
    return `$${amount.toLocaleString("en", { minimumFractionDigits: places })}`;
  };

function hover(index, x, y) {
  if (index === null || !shown) tip.hidden = true;
  else showTip(tip, toldOf(shown.overview, shown.view, index), { x, y, width: plot.clientWidth });
}

/** A finger's first touch shows what is there, its second one goes into it. */
function choose(index, isTouch) {
  if (isTouch && at !== index) return move(index);
  move(null);
  return drillInto(shown.series, index);
}

function describe() {
  plot.setAttribute("aria-valuenow", String(at ?? 0));
  plot.setAttribute(
    "aria-valuetext",
    at === null
      ? byId("trend-summary").textContent
      : spoken(toldOf(shown.overview, shown.view, at)),
  );
}

function move(index) {
  at = index === null ? null : Math.min(Math.max(index, 0), spans() - 1);
  point(canvas, at);
  describe();
}

plot.addEventListener("keydown", (event) => {
  const last = spans() - 1;
  const now = at ?? shown.series.starts.length;
  const steps = {
    ArrowLeft: () => move(now - 1),
    ArrowRight: () => move(at === null ? 0 : now + 1),
    Home: () => move(0),
    End: () => move(last),
    Escape: () => move(null),
    Enter: () => at !== null && drillInto(shown.series, at),
  };
  if (!steps[event.key]) return;
  event.preventDefault();
  steps[event.key]();
});
plot.addEventListener("blur", () => shown && move(null));
plot.addEventListener("pointerleave", ({ pointerType }) => {
  // A finger is taken away to read.
  if (pointerType !== "touch") tip.hidden = true;
});

byId("trend-details").addEventListener("toggle", () => shown && showTable());

byId("metric").addEventListener("click", ({ target }) => {
  if (target.value) go({ metric: target.value, sort: null });
});
byId("chart-kind").addEventListener("click", ({ target }) => {
  if (target.value) go({ chart: target.value });
});
