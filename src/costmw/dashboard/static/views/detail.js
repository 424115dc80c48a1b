/** Everything known of one call, in a dialog. */

import { byId, el, replace, value } from "../dom.js";
import { duration, time, timeZone, whole } from "../format.js";
import { exactUsd } from "../money.js";
import { amount, status } from "../tables.js";

const SOURCES = {
  provider: "the provider's own figure",
  list: "price list",
  override: "your own price",
  none: "none",
};

/** Show a call; closing gives the focus back to its row. */
export function openDetail(call) {
  const dialog = byId("detail");
  replace(byId("detail-title"), value(call.model ?? "Unknown model"));
  replace(byId("detail-body"), ...sections(call));
  dialog.onclose = () => {
    document.querySelector(`[data-key="${CSS.escape(call.id)}"]`)?.focus();
  };
  dialog.onclick = (event) => {
    if (event.target === dialog) dialog.close();
  };
  dialog.showModal();
}

function sections(call) {
  return [
    el(
      "p",
      { class: "headline" },
      el("strong", {}, call.cost_usd === null ? amount(call) : exactUsd(call.cost_usd)),
      status(call),
    ),
    call.reason ? el("p", { class: "reason" }, value(call.reason)) : null,
    section("When", [
      ["Started", `${time(call.created_at)} ${timeZone()}`],
      ["Took", duration(call.latency_ms)],
      ["First chunk after", duration(call.time_to_first_chunk_ms)],
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
      ...Object.entries(call.unit_prices_usd).map(([unit, price]) => [perUnit(unit), `$${price}`]),
    ]),
    section("Tags", Object.entries(call.tags)) ?? section("Tags", [["none", "—"]]),
    section("Call", [
      ["Operation", call.operation],
      ["Provider", call.provider],
      ["API key", call.api_key_id],
      ["Response", call.response_id],
      ["Id", call.id],
    ]),
  ];
}

function section(title, pairs) {
  const known = pairs.filter(([, text]) => text !== null && text !== undefined);
  if (!known.length) return null;
  return el(
    "section",
    {},
    el("h3", {}, title),
    el("dl", {}, ...known.flatMap(([term, text]) => [
      el("dt", {}, value(term)),
      el("dd", {}, value(text === "" ? "(empty)" : text)),
    ])),
  );
}

const PER = { mtok: "per million tokens", kcount: "per thousand" };

/** "cache_read_mtok" -> "cache read, per million tokens" */
function perUnit(unit) {
  const [, what, measure] = /^(.*)_(mtok|kcount)$/.exec(unit) ?? [];
  return measure ? `${words(what)}, ${PER[measure]}` : words(unit);
}

const words = (unit) => unit.replaceAll("_", " ");
