/** The latest calls; each opens with all that is known of it. */

import { byId, el } from "../dom.js";
import { duration, time, whole } from "../format.js";
import { exactUsd } from "../money.js";
import { amount, fill, head, name, number, row, status } from "../tables.js";
import { openDetail } from "./detail.js";

/** Draw the table. */
export function showCalls(calls) {
  fill(byId("calls-table"), calls.map(line), "No calls yet.");
}

function line(call) {
  const open = () => openDetail(call);
  const button = el(
    "button",
    { type: "button", class: "link", "data-key": call.id, onclick: open },
    time(call.created_at),
    el("span", { class: "hidden" }, ", details"),
  );
  const cells = row(
    head(button),
    name(call.model, "(unknown)"),
    name(call.tags.feature, "—"),
    name(call.tags.user, "—"),
    number(whole(call.input_tokens)),
    number(whole(call.output_tokens)),
    number(amount(call), { title: call.cost_usd === null ? call.reason : exactUsd(call.cost_usd) }),
    number(duration(call.latency_ms)),
    el("td", {}, status(call)),
  );
  cells.addEventListener("click", (event) => {
    if (!event.target.closest("button") && !getSelection().toString()) open();
  });
  return cells;
}
