/** Making a filter: what, how, and of which values; those that there are come from the server. */

import { getValues, Problem } from "../api.js";
import { current, go, withFilter, writtenKey } from "../address.js";
import { open } from "../dialogs.js";
import { byId, el, offer, replace, value } from "../dom.js";
import { keyLabel, keys, OPERATORS } from "../labels.js";

const dialog = byId("filter");
const form = byId("filter-form");
const { key: keyField, op: opField, text: textField } = form.elements;

let edited = null;
let chosen = new Set();
let pending = new AbortController();
let timer = 0;

/** Open the form, for a new filter or to change one. */
export function editFilter(keysInUse, filter = null) {
  edited = filter;
  chosen = new Set(filter && (filter.op === "is" || filter.op === "not") ? filter.values : []);
  const offered = keys(keysInUse);
  if (filter && !offered.includes(filter.key)) offered.push(filter.key);
  offer(
    keyField,
    offered.map((key) => [key, keyLabel(key)]),
    filter?.key ?? offered[0],
  );
  offer(opField, Object.entries(OPERATORS), filter?.op ?? "is");
  textField.value = filter?.op === "contains" ? filter.values[0] : "";
  byId("filter-title").textContent = filter ? "Change filter" : "Add filter";
  arrange();
  open(dialog, () => pending.abort());
  (filter ? textField : keyField).focus();
}

const isChoice = () => opField.value === "is" || opField.value === "not";

function arrange() {
  const isBare = opField.value === "set" || opField.value === "unset";
  byId("filter-text").hidden = isBare;
  byId("filter-values").hidden = !isChoice();
  byId("filter-text-label").textContent = isChoice() ? "Find a value" : "Text in it";
  byId("filter-problem").textContent = "";
  if (isChoice()) void list();
}

async function list() {
  pending.abort();
  const { signal } = (pending = new AbortController());
  try {
    const found = await getValues(writtenKey(keyField.value), textField.value, signal);
    show([...new Set([...chosen, ...found])]);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) throw error;
    byId("filter-problem").textContent = error.message;
  }
}

function show(values) {
  const none = el("li", { class: "nothing" }, "No such value; what you have typed counts as one.");
  replace(byId("filter-values"), ...(values.length ? values.map(choice) : [none]));
}

function choice(text) {
  const box = el("input", {
    type: "checkbox",
    checked: chosen.has(text),
    "data-key": `choice ${text}`,
  });
  box.addEventListener("change", () => (box.checked ? chosen.add(text) : chosen.delete(text)));
  const label =
    text === ""
      ? el("span", { class: "absent" }, "(empty)")
      : value(text, { class: "name", title: text });
  return el("li", {}, el("label", {}, box, label));
}

function made() {
  const [key, op] = [keyField.value, opField.value];
  if (!isChoice()) return { key, op, values: op === "contains" ? [textField.value] : [] };
  // What was typed and not picked from the list is meant, too.
  const values = chosen.size ? [...chosen] : textField.value ? [textField.value] : [];
  return { key, op, values };
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const filter = made();
  if (!["set", "unset"].includes(filter.op) && !filter.values.some(Boolean) && !chosen.has("")) {
    byId("filter-problem").textContent = isChoice() ? "Choose a value." : "Type what it contains.";
    textField.focus();
    return;
  }
  const others = current().filters.filter((one) => one !== edited);
  dialog.close();
  go({ filters: withFilter(filter, others), before: null });
});
keyField.addEventListener("change", () => {
  chosen.clear();
  textField.value = "";
  arrange();
});
opField.addEventListener("change", arrange);
textField.addEventListener("input", () => {
  clearTimeout(timer);
  if (isChoice()) timer = setTimeout(list, 150);
});
