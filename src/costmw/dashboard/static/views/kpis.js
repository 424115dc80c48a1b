/** The key figures of this month. */

import { bar, byId, el, replace, value } from "../dom.js";
import { counted, percent, short, whole } from "../format.js";
import { change, exactUsd, isSome, usd } from "../money.js";
import { cost, isUnknown } from "../tables.js";

/** Draw the cards. */
export function showKpis({ month: { sums, previous }, budgets }) {
  const spent = isUnknown(sums) ? null : sums.total_usd;
  replace(
    byId("kpis"),
    card("Spend this month", cost(sums), "", [
      compared(spent, previous.total_usd, "by this time last month"),
      isSome(sums.estimated_cost_usd) ? `${usd(sums.estimated_cost_usd)} of it estimated` : null,
    ]),
    unitCard("Cost per call", sums.cost_per_call_usd, previous.cost_per_call_usd, [
      counted(sums.calls, "call"),
    ]),
    unitCard("Cost per web request", sums.cost_per_request_usd, previous.cost_per_request_usd, [
      sums.requests ? counted(sums.requests, "request") : "no web requests with calls",
    ]),
    card("Tokens", short(sums.input_tokens + sums.output_tokens), inAndOut(sums, whole), [
      inAndOut(sums, short),
      sums.input_tokens
        ? `${percent(sums.cache_read_input_tokens / sums.input_tokens)} of input from cache`
        : null,
    ]),
    budgetCard(budgets[0]),
  );
}

const inAndOut = (sums, format) =>
  `${format(sums.input_tokens)} in, ${format(sums.output_tokens)} out`;

function unitCard(label, now, before, notes) {
  return card(label, usd(now), exactUsd(now), [compared(now, before, "last month"), ...notes]);
}

function budgetCard(budget) {
  if (!budget) return card("Budget used", "—", "", ["no budget is set"]);
  const { used } = budget;
  const level = used >= 1 ? "over" : used >= 0.8 ? "near" : "";
  const meter = el("span", { class: "track", "aria-hidden": "true" }, bar(used, level));
  const label = el("span", { class: "name" }, value(budget.name), ...tagsOf(budget));
  return card("Budget used", percent(used), "", [
    meter,
    label,
    `${usd(budget.spent_usd)} of ${usd(budget.limit_usd)}`,
  ]);
}

function tagsOf({ tags }) {
  return Object.values(tags).flatMap((text) => [" · ", value(text)]);
}

function compared(now, before, when) {
  const changed = change(now, before);
  if (!changed) return null;
  const sign = { 1: "▲", 0: "", [-1]: "▼" }[changed.direction];
  const more = { 1: "more", 0: "change", [-1]: "less" }[changed.direction];
  return el(
    "span",
    {},
    el("span", { "aria-hidden": "true" }, `${sign} `),
    el("strong", {}, changed.text),
    el("span", { class: "hidden" }, ` ${more}`),
    ` vs ${usd(before)} ${when}`,
  );
}

function card(label, figure, exact, notes) {
  return el(
    "div",
    { class: "card" },
    el("dt", {}, label),
    el("dd", { class: "figure", title: exact || null }, figure),
    ...notes.filter(Boolean).map((note) => el("dd", { class: "note" }, note)),
  );
}
