/** Budgets as meters, the fullest first; whoever may edit them does so here. */

import { bar, byId, el, replace, tick, value } from "../dom.js";
import { ahead, date, longDay, percent, whole } from "../format.js";
import { exactUsd, isSome, shareOf, usd } from "../money.js";
import { editBudget } from "./budget_form.js";

const FEW = 4;
const MANY = 200;

let isOpen = false;

/** Draw the meters; `again` redraws when more of them are asked for. */
export function showBudgets({ budgets, tag_keys: tags }, { can_edit: canEdit, scope }, again) {
  const mayAdd = canEdit && Object.keys(scope).length === 0;
  const shown = budgets.slice(0, isOpen ? MANY : FEW);
  replace(
    byId("budgets"),
    ...(shown.length ? shown.map((one) => meter(one, tags)) : [none(mayAdd)]),
  );
  const more = byId("budgets-more");
  more.hidden = isOpen || budgets.length <= FEW;
  more.textContent = `Show all ${whole(budgets.length)}`;
  more.onclick = () => {
    isOpen = true;
    again();
  };
  byId("budget-add").hidden = !mayAdd;
  byId("budget-add").onclick = () => editBudget(tags);
}

function meter(budget, tags) {
  const {
    used,
    spent_usd: spent,
    limit_usd: limit,
    held_usd: held,
    expected_usd: expected,
  } = budget;
  const level = used >= 1 ? "over" : used >= 0.8 ? "near" : "";
  const told = `${percent(used)}, ${usd(spent)} of ${usd(limit)}`;
  return el(
    "li",
    {},
    el(
      "div",
      { class: "line" },
      label(budget),
      budget.editable ? edit(budget, tags) : null,
      el("strong", { class: `share ${level}` }, percent(used)),
    ),
    el(
      "div",
      {
        class: "track",
        role: "meter",
        "aria-label": [budget.name, ...Object.values(budget.tags)].join(", "),
        "aria-valuemin": 0,
        "aria-valuemax": 100,
        "aria-valuenow": Math.min(100, Math.round(used * 100)),
        "aria-valuetext": told,
      },
      bar(used, level),
      isSome(held) ? bar(Math.min(shareOf(held, limit), Math.max(0, 1 - used)), "held") : null,
      expected
        ? tick(shareOf(expected, limit), "expected", `${exactUsd(expected)} expected`)
        : null,
    ),
    el(
      "div",
      { class: "line muted" },
      el(
        "span",
        { title: `${exactUsd(spent)} of ${exactUsd(limit)}` },
        `${usd(spent)} of ${usd(limit)} ${period(budget)}`,
      ),
      state(budget),
    ),
    extra(budget),
  );
}

function label({ name, tags, action }) {
  const values = Object.entries(tags).map(([key, text]) =>
    el("span", { class: "tag" }, value(key), ": ", value(text, { class: "name", title: text })),
  );
  const blocks =
    action === "block"
      ? el("span", { class: "tag", title: "Calls that do not fit are refused" }, "blocks")
      : null;
  return el(
    "span",
    { class: "label" },
    value(name, { class: "name", title: name }),
    ...values,
    blocks,
  );
}

function edit(budget, tags) {
  return el(
    "button",
    {
      type: "button",
      class: "link",
      "data-key": `budget ${budget.name}`,
      "aria-label": `Edit budget ${budget.name}`,
      onclick: () => editBudget(tags, budget.name),
    },
    "Edit",
  );
}

function period({ period }) {
  if (period === "total") return "in total";
  return period === "day" ? "today" : `this ${period}`;
}

function state({ used, runs_out_at: end }) {
  if (used >= 1) return el("strong", { class: "over" }, "used up");
  if (end) return el("strong", { class: "near", title: date(end) }, `runs out ${ahead(end)}`);
  return used >= 0.8 ? el("strong", { class: "near" }, "nearly used up") : null;
}

function extra({
  period: each,
  stop,
  held_usd: held,
  assumed_usd: assumed,
  expected_usd: expected,
}) {
  // The span ends with the first moment of the next one.
  const end = ["week", "month"].includes(each) ? ` by ${longDay(Date.parse(stop) - 1)}` : "";
  const notes = [
    expected ? `${usd(expected)} expected${end}` : null,
    isSome(held) ? `${usd(held)} held for calls in flight` : null,
    isSome(assumed) ? `${usd(assumed)} assumed for calls without a price` : null,
  ].filter(Boolean);
  return notes.length ? el("div", { class: "muted" }, notes.join(" · ")) : null;
}

function none(mayAdd) {
  return el(
    "li",
    { class: "nothing" },
    mayAdd
      ? "No budget is set. Add one here, or where the meter is made: "
      : "No budget is set. Add one where the meter is made: ",
    el("code", {}, 'Meter(..., budgets=[Budget("all", limit="100")])'),
  );
}
