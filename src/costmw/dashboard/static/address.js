/**
 * What is looked at, in the address of the page and nowhere else: a reload, the way back and a
 * link that is sent give the same view.
 */

/**
 * A filter: `key` is a dimension or `tag:` and a tag's key as it is.
 * @typedef {{key: string, op: "is"|"not"|"contains"|"set"|"unset", values: string[]}} Filter
 */

/** What holds when the address does not say; null where the server decides. */
const DEFAULTS = {
  range: "30d",
  from: null,
  to: null,
  tz: null,
  every: "auto",
  compare: "previous",
  by: null,
  metric: "cost",
  top: "9",
  chart: "stack",
  sort: null,
  call: null,
  before: null,
};

/** What the page alone knows of; the rest is part of every question to the server. */
const OF_THE_PAGE = new Set(["chart", "sort", "call", "before"]);

const WITHOUT_VALUES = new Set(["set", "unset"]);

/** @type {Record<string, string|null> & {filters: Filter[]}} */
let view;
let changed = () => {};

/** The view that is shown. */
export const current = () => view;

/** Have `listener` called with the view before and the view now, whenever it has changed. */
export function onChange(listener) {
  changed = listener;
}

/**
 * Change the view; each change is a step that the browser's way back undoes.
 * @param {Partial<typeof view>} changes
 * @param {{replace?: boolean}} [options] `replace`: no step of its own
 */
export function go(changes, { replace = false } = {}) {
  const next = addressOf({ ...view, ...changes });
  if (next === (location.search || location.pathname)) return;
  if (replace) history.replaceState(history.state, "", next);
  else history.pushState({ steps: (history.state?.steps ?? 0) + 1 }, "", next);
  arrive();
}

/** Undo the last step if it was made here, otherwise change the view. */
export function back(changes) {
  if (history.state?.steps) history.back();
  else go(changes, { replace: true });
}

/** The parameters of a question to the server; `changes` differ from the view. */
export function question(changes = {}) {
  return parameters({ ...view, ...changes }, (name) => !OF_THE_PAGE.has(name));
}

/** The address of the page with another view. */
const addressOf = (other) => {
  const text = parameters(other, () => true).toString();
  return text ? `?${text}` : location.pathname;
};

/** The filters with one more; those of the same key and kind become one. */
export function withFilter({ key, op, values }, filters = view.filters) {
  const same = filters.find((one) => one.key === key && one.op === op);
  if (!same) return [...filters, { key, op, values }];
  const all = [...new Set([...same.values, ...values])];
  return filters.map((one) => (one === same ? { key, op, values: all } : one));
}

function parameters(from, isWanted) {
  const found = new URLSearchParams();
  for (const [name, fallback] of Object.entries(DEFAULTS)) {
    const text = from[name];
    if (text === null || text === fallback || !isWanted(name)) continue;
    found.set(name, name === "by" ? writtenKey(text) : text);
  }
  for (const filter of from.filters) {
    for (const text of written(filter)) found.append("filter", text);
  }
  return found;
}

function parsed(search) {
  const given = new URLSearchParams(search);
  const found = { ...DEFAULTS, filters: [] };
  for (const name of Object.keys(DEFAULTS)) found[name] = given.get(name) || DEFAULTS[name];
  found.by &&= readKey(found.by);
  for (const text of given.getAll("filter")) {
    const filter = read(text);
    if (filter) found.filters = withFilter(filter, found.filters);
  }
  return found;
}

function written({ key, op, values }) {
  const name = writtenKey(key);
  return WITHOUT_VALUES.has(op) ? [`${name}:${op}`] : values.map((text) => `${name}:${op}:${text}`);
}

/** `tag:a b` -> `tag:a%20b`: the key of a tag may have colons itself. */
export const writtenKey = (key) =>
  key.startsWith("tag:") ? `tag:${encodeURIComponent(key.slice(4))}` : key;

function readKey(text) {
  return text.startsWith("tag:") ? `tag:${decoded(text.slice(4))}` : text;
}

/** "tag:team:is:core" -> a filter; null when it makes no sense. */
function read(text) {
  const found = /^((?:tag:)?[^:]+):(is|not|contains|set|unset)(?::(.*))?$/s.exec(text);
  if (!found) return null;
  const [, key, op, value] = found;
  if (WITHOUT_VALUES.has(op) !== (value === undefined)) return null;
  return { key: readKey(key), op, values: value === undefined ? [] : [value] };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function arrive() {
  const before = view;
  view = parsed(location.search);
  changed(before, view);
}

view = parsed(location.search);
addEventListener("popstate", arrive);
