/** Spend by what is chosen, the dearest first, each with a bar of its share; sorted as wanted. */

import { current, go } from "../address.js";
import { bar, byId, el, hidden, replace, swatch } from "../dom.js";
import { filterBy } from "../drill.js";
import { counted, duration, percent, short, whole } from "../format.js";
import { absent, keyLabel, keys, keyTitle, valueLabel } from "../labels.js";
import { MEASURES } from "../measures.js";
import { compareUsd, divided, exactUsd, shareOf, usd } from "../money.js";
import { colorOf } from "../palette.js";
import { cost, delta, fill, head, isUnknown, money, name, number } from "../tables.js";

const TOPS = ["9", "25", "50"];

/** By name in the address: what a column says of a row, and how it sorts, the largest first. */
const COLUMNS = {
  name: {
    label: "",
    sort: (a, b, by) => valueLabel(a.value, by).localeCompare(valueLabel(b.value, by)),
  },
  cost: { label: "Cost", sort: byMoney((row) => row.sums.total_usd) },
  share: { label: "Share", sort: byNumber((row) => row.share) },
  change: { label: "Change", sort: byNumber(changeOf) },
  calls: { label: "Calls", sort: byNumber((row) => row.sums.calls) },
  tokens: { label: "Tokens", sort: byNumber((row) => MEASURES.tokens.of(row.sums)) },
  call: { label: "Per call", sort: byMoney((row) => row.sums.cost_per_call_usd) },
  request: { label: "Per request", sort: byMoney((row) => row.sums.cost_per_request_usd) },
  p95: { label: "p95", sort: byNumber((row) => row.latency_p95_ms) },
};

const SORTED_AT_FIRST = {
  cost: "cost",
  calls: "calls",
  tokens: "tokens",
  cost_per_call: "call",
  cost_per_request: "request",
};

/** Draw the tabs and the table. */
export function showBreakdown(overview) {
  const { breakdown, question } = overview;
  const by = breakdown?.by ?? null;
  showTabs(overview, by);
  byId("breakdown-body").hidden = by === null;
  byId("breakdown-title").textContent = by === null ? "Not grouped" : `By ${keyLabel(by)}`;
  if (by === null) return;
  const table = byId("breakdown-table");
  const shown = columns(breakdown);
  const sort = current().sort ?? SORTED_AT_FIRST[question.metric];
  replace(table.tHead, el("tr", {}, ...shown.map((column) => header(column, by, sort))));
  const rows = sorted(breakdown.rows, sort, by).map((row) => line(row, shown, by));
  if (breakdown.other) {
    const others = Math.max(0, breakdown.values - breakdown.rows.length);
    rows.push(
      line(breakdown.other, shown, by, el("span", { class: "absent" }, counted(others, "other"))),
    );
  }
  fill(table, rows, "No calls match.");
  const { p95_ms: p95 } = overview.summary.latency;
  replace(table.tFoot, line({ ...breakdown.total, latency_p95_ms: p95 }, shown, by, "Total"));
  showFoot(breakdown);
}

function showTabs(overview, by) {
  const all = [...keys(overview), "none"];
  replace(
    byId("tabs"),
    ...all.map((key) =>
      el(
        "button",
        {
          type: "button",
          value: key,
          "data-key": `by ${key}`,
          "aria-pressed": String(key === (by ?? "none")),
          onclick: () => go({ by: key, sort: null }),
        },
        key === "none" ? "None" : keyTitle(key),
      ),
    ),
  );
}

function columns({ rows, total }) {
  const isTimed = rows.some((row) => row.latency_p95_ms !== null);
  return Object.keys(COLUMNS).filter(
    (name) =>
      (name !== "p95" || isTimed) &&
      (name !== "change" || total.previous?.calls) &&
      (name !== "request" || total.sums.cost_per_request_usd !== null),
  );
}

function header(name, by, sort) {
  const isSorted = sort.replace("-", "") === name;
  const isRising = sort.startsWith("-");
  const label = name === "name" ? keyTitle(by) : COLUMNS[name].label;
  return el(
    "th",
    {
      scope: "col",
      class: name === "name" ? "" : "number",
      "aria-sort": isSorted ? direction(name, isRising) : null,
    },
    el(
      "button",
      {
        type: "button",
        class: "sort",
        "data-key": `sort ${name}`,
        onclick: () => go({ sort: isSorted && !isRising ? `-${name}` : name }),
      },
      el("bdi", {}, label),
      el(
        "span",
        { class: "arrow", "aria-hidden": "true" },
        isSorted ? { ascending: "▲", descending: "▼" }[direction(name, isRising)] : "",
      ),
    ),
  );
}

/** Names go up at first, numbers down. */
const direction = (name, isReversed) =>
  (name === "name") === isReversed ? "descending" : "ascending";

function sorted(rows, sort, by) {
  const column = COLUMNS[sort.replace("-", "")] ?? COLUMNS.cost;
  const inOrder = [...rows].sort((a, b) => column.sort(a, b, by));
  return sort.startsWith("-") ? inOrder.reverse() : inOrder;
}

function line(one, shown, by, label = null) {
  const { sums, previous, share } = one;
  const cells = {
    name: () =>
      head(
        label ?? link(one, by),
        label
          ? null
          : el("span", { class: "track", "aria-hidden": "true" }, colored(bar(share), one.value)),
      ),
    cost: () => number(cost(sums)),
    share: () => number(isUnknown(sums) ? "—" : percent(share)),
    change: () =>
      number(changed(one), {
        title: previous && `${exactUsd(previous.total_usd)} before`,
      }),
    calls: () => number(whole(sums.calls)),
    tokens: () =>
      number(short(MEASURES.tokens.of(sums)), { title: whole(MEASURES.tokens.of(sums)) }),
    call: () => money(isUnknown(sums) ? null : sums.cost_per_call_usd),
    request: () => money(isUnknown(sums) ? null : sums.cost_per_request_usd),
    p95: () => number(duration(rounded(one.latency_p95_ms))),
  };
  return el("tr", {}, ...shown.map((name) => cells[name]()));
}

function link({ value }, by) {
  return el(
    "button",
    {
      type: "button",
      class: "value",
      "data-key": `row ${value}`,
      onclick: () => filterBy(by, value),
    },
    swatch(colorOf(value)),
    hidden("Only "),
    name(value, absent(by)),
  );
}

function colored(fill, value) {
  fill.style.setProperty("--swatch", `var(--${colorOf(value)})`);
  return fill;
}

function showFoot({ by, rows, values, total, from_rows: isSlow }) {
  const each = by === "tag:user" && values > 1 && total.sums.total_usd;
  const notes = [
    counted(values, "value"),
    each ? `${usd(divided(each, values))} each on average` : null,
    isSlow ? "added up from single calls, which takes longer" : null,
  ];
  byId("breakdown-foot").textContent = notes.filter(Boolean).join(" · ");
  const more = byId("breakdown-more");
  const next = TOPS.find((top) => Number(top) > rows.length);
  more.hidden = values <= rows.length || !next;
  more.textContent = `Show ${next}`;
  more.onclick = () => go({ top: next });
}

function changed({ sums, previous }) {
  if (!previous?.calls) return "new";
  return (isUnknown(sums) ? null : delta(sums.total_usd, previous.total_usd)) ?? "—";
}

const rounded = (number) => (number === null ? null : Math.round(number));

function changeOf({ sums, previous }) {
  return previous ? shareOf(sums.total_usd, previous.total_usd) || null : null;
}

function byNumber(read) {
  return (a, b) => (read(b) ?? -1) - (read(a) ?? -1);
}

function byMoney(read) {
  return (a, b) => compareUsd(read(a), read(b));
}
