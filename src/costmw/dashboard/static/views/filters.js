/** The filters as chips; each opens for a change, and goes with its cross. */

import { current, go } from "../address.js";
import { byId, el, hidden, replace, value } from "../dom.js";
import { keyLabel, OPERATORS } from "../labels.js";
import { editFilter } from "./filter_form.js";

let keysInUse = { dimensions: [], tag_keys: [] };

/** Draw the chips. */
export function showFilters(overview = null) {
  if (overview) keysInUse = overview;
  replace(byId("filters"), ...current().filters.map(chip));
  byId("filter-clear").hidden = current().filters.length < 2;
}

function chip(filter, n) {
  const { key, op, values } = filter;
  const joined = values.flatMap((text, m) => [
    m ? el("span", { class: "or" }, " or ") : null,
    named(text),
  ]);
  return el(
    "li",
    { class: "chip" },
    el(
      "button",
      { type: "button", "data-key": `filter ${n}`, onclick: () => editFilter(keysInUse, filter) },
      hidden("Change: "),
      value(keyLabel(key)),
      el("span", { class: "op" }, ` ${OPERATORS[op]} `),
      ...joined.filter(Boolean),
    ),
    el(
      "button",
      {
        type: "button",
        class: "cross",
        "aria-label": `Remove filter ${keyLabel(key)} ${OPERATORS[op]} ${values.join(" or ")}`,
        onclick: () => remove(filter),
      },
      "×",
    ),
  );
}

const named = (text) =>
  text === ""
    ? el("span", { class: "absent" }, "(empty)")
    : value(text, { class: "name", title: text });

function remove(filter) {
  go({ filters: current().filters.filter((one) => one !== filter), before: null });
  byId("filter-add").focus();
}

byId("filter-add").addEventListener("click", () => editFilter(keysInUse));
byId("filter-clear").addEventListener("click", () => {
  go({ filters: [], before: null });
  byId("filter-add").focus();
});
