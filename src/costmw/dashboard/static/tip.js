/** What is shown beside the pointer over the chart: every part of one span, the dearest first. */

import { el, replace, swatch, value } from "./dom.js";
import { percent } from "./format.js";

/** From the pointer, in pixels. */
const GAP = 16;

/**
 * Show it; `told` is what `trend_text.js` says of a span.
 * @param {HTMLElement} tip
 * @param {{title: string, rows: {label: string, color: string, text: string, share: number|null}[],
 *   total: string|null, notes: string[]}} told
 * @param {{x: number, y: number, width: number}} place in the plot that it is over
 */
export function showTip(tip, told, { x, y, width }) {
  const rows = told.rows.map(({ label, color, text, share }) =>
    el(
      "tr",
      {},
      el("td", {}, color ? swatch(color) : null, value(label, { class: "name" })),
      el("td", { class: "number" }, text),
      el("td", { class: "number share" }, share === null ? "" : percent(share)),
    ),
  );
  replace(
    tip,
    el("div", { class: "title" }, told.title, el("strong", {}, told.total)),
    el("table", {}, el("tbody", {}, ...rows)),
    ...told.notes.map((note) => el("p", {}, value(note))),
  );
  tip.hidden = false;
  const beside = x > width / 2 ? x - GAP - tip.offsetWidth : x + GAP;
  tip.style.top = `${y}px`;
  tip.style.left = `${Math.max(0, Math.min(beside, width - tip.offsetWidth))}px`;
}
