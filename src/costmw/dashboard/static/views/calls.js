/** The latest calls, and pages of older ones; each opens with all that is known of it. */

import { current, go, question } from "../address.js";
import { getCalls } from "../api.js";
import { byId, el, hidden } from "../dom.js";
import { duration, time, whole } from "../format.js";
import { exactUsd } from "../money.js";
import { amount, fill, head, name, number, row, status } from "../tables.js";

const A_PAGE = 50;
const NEWEST = 20;

/** Where the calls older than those that are shown begin; null when there are none. */
let older = null;

/** The page of older calls that the address asks for, or null for the newest. */
export async function olderCalls(signal) {
  const { before } = current();
  return before === null ? null : getCalls(asked({ limit: A_PAGE, before }), signal);
}

/** Draw the table: a page of older calls, or the newest. */
export function showCalls({ calls }, page) {
  const shown = page ? page.calls : calls;
  older = page ? page.before : null;
  fill(byId("calls-table"), shown.map(line), "No calls match.");
  byId("calls-title").textContent = page ? "Older calls" : "Latest calls";
  byId("calls-newest").hidden = !page;
  byId("calls-older").hidden = page ? page.before === null : calls.length < NEWEST;
}

function line(call) {
  const open = () => go({ call: call.id });
  const button = el(
    "button",
    { type: "button", class: "link", "data-key": call.id, onclick: open },
    time(call.created_at),
    hidden(", details"),
  );
  const cells = row(
    head(button),
    name(call.model, "(unknown)"),
    number(amount(call), { title: call.cost_usd === null ? call.reason : exactUsd(call.cost_usd) }),
    name(call.tags.feature, "—"),
    name(call.tags.user, "—"),
    number(whole(call.input_tokens)),
    number(whole(call.output_tokens)),
    number(duration(call.latency_ms)),
    el("td", {}, status(call)),
  );
  cells.addEventListener("click", (event) => {
    if (!event.target.closest("button") && !getSelection().toString()) open();
  });
  return cells;
}

function asked(more) {
  const parameters = question();
  parameters.set("range", current().range); // all of time when it is left out
  for (const [name, text] of Object.entries(more)) parameters.set(name, text);
  return parameters;
}

byId("calls-older").addEventListener("click", async () => {
  // The newest come with the first screen, which does not say where older ones go on.
  older ??= (await getCalls(asked({ limit: NEWEST }))).before;
  if (older !== null) go({ before: String(older) });
});
byId("calls-newest").addEventListener("click", () => go({ before: null }));
