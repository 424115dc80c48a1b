/** What time is looked at, in which steps and which zone, and what it is compared with. */

import { current, go } from "../address.js";
import { open } from "../dialogs.js";
import { byId, offer } from "../dom.js";
import { dayAfter } from "../drill.js";
import { date, isoDay } from "../format.js";
import { keyLabel, keys, RANGES } from "../labels.js";

const STEPS = { auto: "Auto", hour: "Hours", day: "Days", month: "Months" };

const COMPARISONS = { previous: "vs previous", none: "not compared" };

const MOST_DAYS_BY_HOUR = 33;

const range = byId("range");
const dates = byId("dates");
const form = byId("dates-form");

let question = null;
let ledgersZone = null;

/** Show what is chosen. */
export function showControls(overview) {
  ({ question } = overview);
  const view = current();
  offer(range, Object.entries(RANGES), view.range);
  const isCustom = view.range === "custom";
  byId("dates-open").hidden = !isCustom;
  byId("dates-open").textContent = shownDates();
  offer(byId("compare"), Object.entries(COMPARISONS), view.compare);
  offer(byId("every"), steps(), view.every);
  showZones(view.tz);
  const offered = keys(overview);
  const by = question.by ?? "none";
  if (!offered.includes(by) && by !== "none") offered.push(by);
  offer(byId("by"), [...offered.map((key) => [key, keyLabel(key)]), ["none", "nothing"]], by);
}

/** Hours only where there are not too many of them. */
function steps() {
  const days = (Date.parse(question.stop) - Date.parse(question.start)) / 86_400_000;
  return Object.entries(STEPS).filter(([step]) => step !== "hour" || days <= MOST_DAYS_BY_HOUR);
}

function shownDates() {
  const last = Date.parse(question.stop) - 1;
  const [from, to] = [date(question.start), date(last)];
  return from === to ? from : `${from} – ${to}`;
}

/** The ledger's own zone, the reader's, and all that the browser knows: made once, they are many. */
function showZones(chosen) {
  const select = byId("zone");
  if (!chosen) ledgersZone = question.time_zone;
  if (select.options.length < 2) {
    const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
    const all = Intl.supportedValuesOf?.("timeZone") ?? [];
    const named = [...new Set(["UTC", own, ...all])].filter(Boolean);
    const labelled = named.map((zone) => [zone, zone === own ? `${zone} (yours)` : zone]);
    offer(select, [["", ""], ...labelled], "");
  }
  select.options[0].label = ledgersZone ? `${ledgersZone} (ledger)` : "Ledger’s zone";
  select.value = chosen ?? "";
  // One that the browser does not list.
  if (select.value !== (chosen ?? "")) select.add(new Option(chosen, chosen, true, true));
}

function chooseDates() {
  const { from, to } = form.elements;
  from.value = isoDay(question.start);
  to.value = isoDay(Date.parse(question.stop) - 1);
  byId("dates-problem").textContent = "";
  open(dates, () => (range.value = current().range));
}

range.addEventListener("change", () => {
  if (range.value === "custom") chooseDates();
  else go({ range: range.value, from: null, to: null, every: "auto", before: null });
});
byId("dates-open").addEventListener("click", chooseDates);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const { from, to } = form.elements;
  if (!from.value || !to.value || from.value > to.value) {
    byId("dates-problem").textContent = "The last day must not be before the first.";
    return;
  }
  dates.close();
  go({ range: "custom", from: from.value, to: dayAfter(to.value), every: "auto", before: null });
});
byId("compare").addEventListener("change", ({ target }) => go({ compare: target.value }));
byId("every").addEventListener("change", ({ target }) => go({ every: target.value }));
byId("zone").addEventListener("change", ({ target }) => go({ tz: target.value || null }));
byId("by").addEventListener("change", ({ target }) => go({ by: target.value, sort: null }));
