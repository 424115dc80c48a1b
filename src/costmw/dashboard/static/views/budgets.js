/** Budgets as meters, the fullest first. */

import { bar, byId, el, replace, value } from "../dom.js";
import { longDay, percent, whole } from "../format.js";
import { exactUsd, usd } from "../money.js";

const FEW = 4;
const MANY = 200;

let isOpen = false;

/** Draw the meters; `again` redraws when more of them are asked for. */
export function showBudgets({ budgets }, again) {
  const shown = budgets.slice(0, isOpen ? MANY : FEW);
  replace(byId("budgets"), ...(shown.length ? shown.map(meter) : [none()]));
  const more = byId("budgets-more");
  more.hidden = isOpen || budgets.length <= FEW;
  more.textContent = `Show all ${whole(budgets.length)}`;
  more.onclick = () => {
    isOpen = true;
    again();
  };
}

function meter(budget) {
  const { used, spent_usd: spent, limit_usd: limit } = budget;
  const level = used >= 1 ? "over" : used >= 0.8 ? "near" : "";
  const told = `${percent(used)}, ${usd(spent)} of ${usd(limit)}`;
  return el(
    "li",
    {},
    el("div", { class: "line" }, label(budget), el("strong", { class: "share" }, percent(used))),
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
    ),
    el(
      "div",
      { class: "line muted" },
      el(
        "span",
        { title: `${exactUsd(spent)} of ${exactUsd(limit)}` },
        `${usd(spent)} of ${usd(limit)} ${period(budget)}`,
      ),
      state(used),
    ),
  );
}

function label({ name, tags }) {
  const values = Object.entries(tags).map(([key, text]) =>
    el("span", { class: "chip" }, value(key), ": ", value(text, { class: "name", title: text })),
  );
  return el("span", { class: "label" }, value(name, { class: "name", title: name }), ...values);
}

function period({ period, stop }) {
  if (period === "total") return "in total";
  if (period === "day") return "today";
  // The span ends with the first moment of the next one.
  return `this ${period}, until ${longDay(Date.parse(stop) - 1)}`;
}

function state(used) {
  if (used >= 1) return el("strong", { class: "over" }, "used up");
  return used >= 0.8 ? el("strong", { class: "near" }, "nearly used up") : null;
}

function none() {
  return el(
    "li",
    { class: "nothing" },
    "No budget is set. Add one where the meter is made: ",
    el("code", {}, 'Meter(..., budgets=[Budget("all", limit="100")])'),
  );
}
