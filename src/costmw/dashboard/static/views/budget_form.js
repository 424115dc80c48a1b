/** Making and changing a budget; what the server does not take is said at its field. */

import { deleteBudget, getBudgets, Problem, putBudget } from "../api.js";
import { open } from "../dialogs.js";
import { byId, el, replace, value } from "../dom.js";

const dialog = byId("budget");
const form = byId("budget-form");
const fields = form.elements;
const remove = byId("budget-remove");
const nothing = () => {};

let isSure = false;
let rule = null;
let changed = nothing;

/** Have `listener` called when budgets were changed here. */
export function onBudgets(listener) {
  changed = listener;
}

/**
 * Open the form.
 * @param {string[]} tags keys that a budget may be split by
 * @param {string|null} [name] of the budget that is to be changed
 */
export async function editBudget(tags, name = null) {
  form.reset();
  complain(null);
  rule = null;
  byId("budget-title").textContent = name === null ? "Add budget" : "Edit budget";
  fields.name.readOnly = name !== null;
  fields.name.value = name ?? "";
  isSure = false;
  remove.textContent = "Remove";
  remove.hidden = name === null;
  showTags(tags, []);
  open(dialog);
  if (name === null) return;
  try {
    const { rules } = await getBudgets();
    rule = rules?.find((one) => one.name === name) ?? null;
    if (rule) fill(rule, tags);
  } catch (error) {
    complainOf(error);
  }
}

function fill(found, tags) {
  fields.limit_usd.value = found.limit_usd;
  fields.period.value = found.period;
  fields.action.value = found.action;
  fields.where.value = Object.entries(found.where ?? {})
    .map(([key, text]) => `${key}=${text}`)
    .join("\n");
  fields.alert_at.value = (found.alert_at ?? [])
    .map((share) => String(Math.round(share * 1e4) / 100))
    .join(", ");
  showTags([...new Set([...tags, ...(found.per ?? [])])], found.per ?? []);
}

function showTags(tags, chosen) {
  replace(
    byId("budget-per"),
    ...tags.map((key) =>
      el(
        "label",
        {},
        el("input", { type: "checkbox", name: "per", value: key, checked: chosen.includes(key) }),
        value(key, { class: "name", title: key }),
      ),
    ),
  );
  byId("budget-per-group").hidden = tags.length === 0;
}

/** What the form says; fields that it does not show stay as they are. */
function made() {
  const kept = { ...rule };
  for (const key of ["name", "source", "editable"]) delete kept[key];
  return {
    ...kept,
    limit_usd: fields.limit_usd.value.trim(),
    period: fields.period.value,
    action: fields.action.value,
    per: [...form.querySelectorAll("[name=per]:checked")].map((box) => box.value),
    where: Object.fromEntries(
      fields.where.value
        .split("\n")
        .filter((line) => line.trim())
        .map((line) => {
          const [key, ...rest] = line.split("=");
          return [key.trim(), rest.join("=").trim()];
        }),
    ),
    alert_at: fields.alert_at.value
      .split(/[\s,;%]+/)
      .filter(Boolean)
      .map((text) => Number(text) / 100),
  };
}

async function send(work) {
  complain(null);
  const buttons = [...form.querySelectorAll("button")];
  for (const button of buttons) button.disabled = true;
  try {
    await work();
    dialog.close();
    changed();
  } catch (error) {
    complainOf(error);
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

function complainOf(error) {
  if (!(error instanceof Problem)) {
    dialog.close();
    throw error;
  }
  complain(error);
}

/** Say what is wrong, at the field that it is about. */
function complain(problem) {
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  }
  const told = byId("budget-problem");
  told.textContent = problem?.message ?? "";
  const field = problem?.field && fields.namedItem(problem.field.split(".")[0]);
  if (!(field instanceof HTMLElement)) {
    form.querySelector(".actions").before(told);
    return;
  }
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", told.id);
  field.closest("label").after(told);
  field.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void send(() => putBudget(fields.name.value.trim(), made()));
});
remove.addEventListener("click", () => {
  if (isSure) return void send(() => deleteBudget(fields.name.value));
  isSure = true;
  remove.textContent = "Remove for good";
  complain({ message: "What the budget has counted is gone with it." });
  return undefined;
});
