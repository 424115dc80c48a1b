/** Spend by model or by a tag, the dearest first, each with a bar of its share. */

import { bar, byId, el, replace } from "../dom.js";
import { percent, whole } from "../format.js";
import { cost, fill, head, isUnknown, money, name, number, row } from "../tables.js";

const FIRST = ["feature", "team", "tenant", "user", "route", "environment"];

/** The models. */
export function showModels({ by_model: breakdown }) {
  fill(byId("model-table"), rows(breakdown, "(unknown)"), "No calls in these 30 days.");
}

/** The values of one tag; the select holds all keys that there are. */
export function showTags({ by_tag: breakdown, tag_keys: keys }) {
  const key = breakdown.by.slice("tag:".length);
  byId("tag-column").textContent = key;
  showKeys(keys, key);
  fill(byId("tag-table"), rows(breakdown, "(not set)"), "No calls in these 30 days.");
}

/** The key to begin with when the address names none: the first that is in use. */
export function firstKey(keys) {
  return FIRST.find((key) => keys.includes(key)) ?? keys[0] ?? FIRST[0];
}

function showKeys(keys, current) {
  const select = byId("tag");
  const known = FIRST.filter((key) => keys.includes(key));
  const all = [...new Set([...known, ...keys, current])];
  const shown = [...select.options].map((option) => option.value);
  // Left alone when nothing changes: it may be open.
  if (all.join("\0") !== shown.join("\0")) {
    replace(select, ...all.map((key) => el("option", { value: key }, key)));
  }
  select.value = current;
}

function rows({ rows, other }, absent) {
  const all = rows.map((one) => line(one, name(one.value, absent)));
  if (other) all.push(line(other, el("span", { class: "absent" }, "all others")));
  return all;
}

function line({ share, sums }, label) {
  return row(
    head(label, el("span", { class: "track", "aria-hidden": "true" }, bar(share))),
    number(cost(sums)),
    number(isUnknown(sums) ? "—" : percent(share)),
    number(whole(sums.calls)),
    money(sums.cost_per_call_usd),
  );
}
