/** Cells and rows that several views share. */

import { el, hidden, replace, value } from "./dom.js";
import { percent, whole } from "./format.js";
import { change, exactUsd, isSome, usd } from "./money.js";

/** Fill the body of a table; without rows it says `nothing`. */
export function fill(table, rows, nothing) {
  const columns = table.tHead.rows[0].cells.length;
  const empty = el("tr", {}, el("td", { class: "nothing", colspan: columns }, nothing));
  replace(table.tBodies[0], ...(rows.length ? rows : [empty]));
}

/** A row of cells; text becomes a cell by itself. */
export function row(...cells) {
  return el("tr", {}, ...cells.map((cell) => (isCell(cell) ? cell : el("td", {}, cell))));
}

/** A cell that names its row. */
export function head(...children) {
  return el("th", { scope: "row" }, ...children);
}

/** A number, aligned with those above it. */
export function number(text, attributes = {}) {
  return el("td", { ...attributes, class: `number ${attributes.class ?? ""}` }, text);
}

/** Money, rounded, with all digits on hover. */
export function money(text, attributes = {}) {
  return number(usd(text), { title: exactUsd(text), ...attributes });
}

/** A name from outside, cut when it is long; `absent` when there is none. */
export function name(text, absent) {
  if (text === null || text === undefined) return el("span", { class: "absent" }, absent);
  if (text === "") return el("span", { class: "absent" }, "(empty)");
  return value(text, { class: "name", title: text });
}

/** What some calls cost: marked where a part is estimated, a dash where nothing is known. */
export function cost(sums) {
  if (isUnknown(sums)) return el("span", { class: "absent", title: missing(sums) }, "no price");
  const estimated = isSome(sums.estimated_cost_usd);
  const title = [
    exactUsd(sums.total_usd),
    estimated ? `of it ${exactUsd(sums.estimated_cost_usd)} estimated` : "",
    sums.unpriced_calls ? missing(sums) : "",
  ];
  return el(
    "span",
    { title: title.filter(Boolean).join("; ") },
    estimated ? mark("≈ ") : null,
    usd(sums.total_usd),
    sums.unpriced_calls ? mark(" +") : null,
  );
}

/** How much more or less money than before; nothing when that cannot be said. */
export function delta(now, before) {
  const changed = change(now, before);
  if (!changed) return null;
  return arrow(changed.direction, changed.text, "spend");
}

/** The same for counts and shares. */
export function numberDelta(now, before) {
  if (now === null || before === null || !before) return null;
  const ratio = now / before - 1;
  return arrow(
    Math.sign(ratio),
    ratio >= 10 ? `${whole(Math.round(ratio + 1))}×` : percent(Math.abs(ratio)),
  );
}

/** What a call cost, marked when it is estimated. */
export function amount({ cost_usd: cost, status }) {
  if (cost === null) return el("span", { class: "absent" }, "no price");
  return el("span", {}, status === "ok" ? null : mark("≈ "), usd(cost));
}

/** How far its usage is known. */
export function status(call) {
  return el("span", { class: `status ${call.status}`, title: call.reason }, call.status);
}

/** Whether there are calls and the cost of none of them is known. */
export function isUnknown(sums) {
  return sums.calls > 0 && sums.unpriced_calls === sums.calls;
}

function arrow(direction, text, className = "") {
  const [sign, word] = { 1: ["▲", "more"], 0: ["", "no change"], [-1]: ["▼", "less"] }[direction];
  return el(
    "span",
    { class: `delta ${className} ${{ 1: "up", 0: "same", [-1]: "down" }[direction]}` },
    el("span", { class: "arrow", "aria-hidden": "true" }, sign),
    text,
    hidden(` ${word}`),
  );
}

/** A sign that the foot of the page explains. */
const mark = (sign) => el("span", { class: "mark" }, sign);

function missing(sums) {
  return `${whole(sums.unpriced_calls)} of ${whole(sums.calls)} calls without a price`;
}

function isCell(child) {
  return child instanceof HTMLTableCellElement;
}
