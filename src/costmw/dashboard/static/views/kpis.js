/** The key figures: of the time that is looked at, of this month, and of the fullest budget. */

import { bar, byId, el, replace, tick, value } from "../dom.js";
import { counted, day, duration, percent, short, whole } from "../format.js";
import { RANGES } from "../labels.js";
import { MEASURES } from "../measures.js";
import { exactUsd, isSome, shareOf, usd } from "../money.js";
import { sparkline } from "../sparkline.js";
import { cost, delta, isUnknown, numberDelta } from "../tables.js";

/** Draw the cards. */
export function showKpis(overview) {
  replace(
    byId("kpis"),
    spend(overview),
    month(overview),
    budget(overview.budgets[0]),
    unitCost(overview),
    tokens(overview),
    speed(overview),
  );
}

function spend({ summary: { sums, previous }, series, question }) {
  const when =
    question.range === "custom"
      ? `${day(question.start)} to ${day(Date.parse(question.stop) - 1)}`
      : (RANGES[question.range]?.toLowerCase() ?? "");
  return card(`Spend, ${when}`, cost(sums), {
    delta: previous && delta(known(sums), previous.total_usd),
    beside: previous && isSome(previous.total_usd) ? `vs ${usd(previous.total_usd)}` : null,
    notes: [
      isSome(sums.estimated_cost_usd) ? `${usd(sums.estimated_cost_usd)} of it estimated` : null,
    ],
    drawing: spark(series, "cost"),
  });
}

function month({ month: { sums, previous, stop }, forecast, series: { from_rows: isSlow } }) {
  const end = day(Date.parse(stop) - 1);
  const expected = forecast && [
    el(
      "span",
      { title: exactUsd(forecast.expected_usd) },
      "→ ",
      el("strong", {}, usd(forecast.expected_usd)),
      ` by ${end}`,
    ),
    `forecast: ${usd(forecast.low_usd)} to ${usd(forecast.high_usd)}`,
  ];
  const share = forecast ? shareOf(forecast.spent_usd, forecast.expected_usd) : null;
  return card("This month", cost(sums), {
    delta: delta(known(sums), previous.total_usd),
    beside: isSome(previous.total_usd) ? "vs last month" : null,
    notes: expected ?? [isSlow ? "No forecast for these filters" : "No forecast yet"],
    drawing: forecast && el("span", { class: "track", "aria-hidden": "true" }, bar(share)),
  });
}

function budget(found) {
  if (!found) return card("Budget", "—", { notes: ["No budget is set"] });
  const level = found.used >= 1 ? "over" : found.used >= 0.8 ? "near" : "";
  const names = [found.name, ...Object.values(found.tags)].flatMap((text, n) => [
    n ? " · " : null,
    value(text),
  ]);
  return card("Budget used most", percent(found.used), {
    className: level,
    notes: [
      el("span", { class: "name" }, ...names),
      `${usd(found.spent_usd)} of ${usd(found.limit_usd)}`,
    ],
    drawing: el(
      "span",
      { class: "track", "aria-hidden": "true" },
      bar(found.used, level),
      isSome(found.expected_usd)
        ? tick(shareOf(found.expected_usd, found.limit_usd), "expected")
        : null,
    ),
  });
}

function unitCost({ summary: { sums, previous }, series }) {
  const isPerRequest = sums.cost_per_request_usd !== null;
  const key = isPerRequest ? "cost_per_request" : "cost_per_call";
  const now = MEASURES[key].of(sums);
  const before = previous && MEASURES[key].of(previous);
  return card(isPerRequest ? "Cost per web request" : "Cost per call", usd(now), {
    title: exactUsd(now),
    delta: delta(now, before),
    beside: before ? `vs ${usd(before)}` : null,
    notes: [
      isPerRequest
        ? el(
            "span",
            { title: exactUsd(sums.cost_per_call_usd) },
            `${usd(sums.cost_per_call_usd)} per call`,
          )
        : counted(sums.calls, "call"),
    ],
    drawing: spark(series, key),
  });
}

function tokens({ summary: { sums, previous }, series }) {
  const all = MEASURES.tokens.of(sums);
  const before = previous && MEASURES.tokens.of(previous);
  const cached = sums.input_tokens ? sums.cache_read_input_tokens / sums.input_tokens : 0;
  return card("Tokens", short(all), {
    title: whole(all),
    delta: previous && numberDelta(all, before),
    beside: before ? `vs ${short(before)}` : null,
    notes: [
      `${short(sums.input_tokens)} in, ${short(sums.output_tokens)} out`,
      `${percent(cached)} of input cached`,
    ],
    drawing: spark(series, "tokens"),
  });
}

function speed({ summary: { sums, previous, latency, outcomes }, series }) {
  const tried = sums.calls + (outcomes?.error ?? 0) + (outcomes?.refused ?? 0);
  const failed = outcomes ? outcomes.error / (tried || 1) : null;
  return card("Calls", short(sums.calls), {
    title: whole(sums.calls),
    delta: previous && numberDelta(sums.calls, previous.calls),
    beside: previous?.calls ? `vs ${short(previous.calls)}` : null,
    notes: [
      latency.p95_ms === null ? null : `p95 ${duration(Math.round(latency.p95_ms))}`,
      failed === null ? null : `${percent(failed)} failed`,
    ]
      .filter(Boolean)
      .join(" · ")
      .split("\n"),
    drawing: spark(series, "calls"),
  });
}

const known = (sums) => (isUnknown(sums) ? null : sums.total_usd);

function spark(series, metric) {
  const { at, pixels: drawn } = MEASURES[metric];
  return sparkline(series.starts.map((_, n) => drawn(at(series.total, n))));
}

/** @param {{title?: string, delta?: Node, beside?: string, notes?: (Node|string)[], drawing?: Node}} parts */
function card(
  label,
  figure,
  {
    title = null,
    delta: changed = null,
    beside = null,
    notes = [],
    drawing = null,
    className = "",
  },
) {
  const compared =
    changed || beside
      ? el("dd", { class: "compared" }, changed, changed && beside ? " " : null, beside)
      : null;
  return el(
    "div",
    { class: `card ${className}` },
    el("dt", {}, label),
    el("dd", { class: "figure", title }, figure),
    compared,
    ...notes.filter(Boolean).map((note) => el("dd", { class: "note" }, note)),
    drawing && el("dd", { class: "drawing" }, drawing),
  );
}
