/** Everything known of one call, in a dialog: the address says which. */

import { back, current } from "../address.js";
import { getCall, Problem } from "../api.js";
import { open } from "../dialogs.js";
import { byId, el, replace, value } from "../dom.js";
import { date, duration, time, timeZone, whole, words } from "../format.js";
import { exactUsd } from "../money.js";
import { amount, fill, head, number, row, status } from "../tables.js";

const SOURCES = {
  provider: "the provider’s own figure",
  list: "price list",
  override: "your own price",
  none: "none",
};

const dialog = byId("detail");
let shown = null;

/** Open, change or close the dialog, as the address says; `known` are calls on the page. */
export async function showDetail(known) {
  const { call: id } = current();
  if (id === shown) return;
  shown = id;
  if (id === null) return dialog.close();
  const here = known.find((call) => call.id === id);
  replace(byId("detail-title"), here ? title(here) : "Call");
  replace(
    byId("detail-body"),
    ...(here ? sections(here) : [el("p", { class: "muted" }, "Loading…")]),
  );
  open(dialog, closed);
  try {
    const call = await getCall(id);
    if (shown !== id) return undefined;
    replace(byId("detail-title"), title(call));
    replace(byId("detail-body"), ...sections(call));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (shown === id)
      byId("detail-body").append(el("p", { class: "reason", role: "alert" }, error.message));
  }
  return undefined;
}

function closed() {
  if (shown === null) return;
  shown = null;
  back({ call: null });
}

const title = (call) => value(call.model ?? "Unknown model");

function sections(call) {
  return [
    el(
      "p",
      { class: "headline" },
      el("strong", {}, call.cost_usd === null ? amount(call) : exactUsd(call.cost_usd)),
      status(call),
    ),
    call.reason ? el("p", { class: "reason" }, value(call.reason)) : null,
    arithmetic(call),
    amendments(call),
    section("Tags", Object.entries(call.tags)) ?? section("Tags", [["none", "—"]]),
    section("When", [
      ["Started", `${time(call.created_at)} ${timeZone()}`],
      ["Took", duration(call.latency_ms)],
      [
        "First chunk after",
        call.time_to_first_chunk_ms === null ? null : duration(call.time_to_first_chunk_ms),
      ],
    ]),
    section("Tokens", [
      ["Input", whole(call.input_tokens)],
      ["of it read from cache", whole(call.cache_read_input_tokens)],
      ["of it written to cache", whole(call.cache_write_input_tokens)],
      ["Output", whole(call.output_tokens)],
      ["of it reasoning", whole(call.reasoning_output_tokens)],
      ...Object.entries(call.detail).map(([unit, count]) => [words(unit), whole(count)]),
    ]),
    section("Price", [
      ["Source", SOURCES[call.cost_source] ?? call.cost_source],
      ["Reference", call.price_ref],
      ["Of", call.price_date ? date(call.price_date) : null],
    ]),
    section("Call", [
      ["Operation", call.operation],
      ["Provider", call.provider],
      ["API key", call.api_key_id],
      ["Response", call.response_id],
      ["Id", call.id],
    ]),
  ];
}

/** What was used, times its price: to the last digit what the call cost. */
function arithmetic({ lines, why, cost_usd: all }) {
  if (lines === undefined) return null;
  if (!lines?.length) return why ? section("How it adds up", [["", why]]) : null;
  const table = el(
    "table",
    { class: "sum" },
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        ...["What", "Quantity", "Price", "Cost"].map((text, n) =>
          el("th", { scope: "col", class: n ? "number" : "" }, text),
        ),
      ),
    ),
    el("tbody", {}),
    el("tfoot", {}, row(head("Total"), number(""), number(""), number(exactUsd(all)))),
  );
  fill(
    table,
    lines.map((line) =>
      row(
        head(value(line.label)),
        number(grouped(line.quantity)),
        number(`× ${exactUsd(line.unit_price_usd)}${line.per === "1" ? "" : ` / ${line.per}`}`),
        number(exactUsd(line.cost_usd)),
      ),
    ),
  );
  return el(
    "section",
    {},
    el("h3", {}, "How it adds up"),
    el(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": "How it adds up" },
      table,
    ),
  );
}

function amendments({ amendments: found }) {
  if (!found?.length) return null;
  return el(
    "section",
    {},
    el("h3", {}, "Corrected since"),
    el(
      "ul",
      { class: "amendments" },
      ...found.map((one) =>
        el(
          "li",
          {},
          `${time(one.created_at)}: `,
          value(one.reason),
          `, ${exactUsd(one.cost_usd_before)} → ${exactUsd(one.cost_usd_after)}`,
        ),
      ),
    ),
  );
}

function section(title, pairs) {
  const known = pairs.filter(([, text]) => text !== null && text !== undefined);
  if (!known.length) return null;
  return el(
    "section",
    {},
    el("h3", {}, title),
    el(
      "dl",
      {},
      ...known.flatMap(([term, text]) => [
        el("dt", {}, value(term)),
        el("dd", {}, value(text === "" ? "(empty)" : text)),
      ]),
    ),
  );
}

/** "1234567.5" -> "1,234,567.5" */
function grouped(text) {
  const [whole, ...rest] = String(text).split(".");
  return [whole.replace(/\B(?=(\d{3})+$)/g, ","), ...rest].join(".");
}
