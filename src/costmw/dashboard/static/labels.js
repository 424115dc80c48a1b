/** What things are called on the page. */

const DIMENSIONS = {
  model: "model",
  provider: "provider",
  operation: "operation",
  status: "status",
  cost_source: "price source",
  api_key_id: "API key",
};

/** Tags that most apps have, in the order in which they are offered. */
const COMMON_TAGS = ["feature", "team", "tenant", "user", "route"];

/** What the chart shows, as its title. */
export const METRICS = {
  cost: "Spend",
  calls: "Calls",
  tokens: "Tokens",
  cost_per_call: "Cost per call",
  cost_per_request: "Cost per web request",
};

export const RANGES = {
  today: "Today",
  "7d": "Last 7 days",
  "30d": "Last 30 days",
  "90d": "Last 90 days",
  "12m": "Last 12 months",
  month: "This month",
  "last-month": "Last month",
  custom: "Custom dates…",
};

export const OPERATORS = {
  is: "is",
  not: "is not",
  contains: "contains",
  set: "is set",
  unset: "is not set",
};

/** "tag:feature" -> "feature", "cost_source" -> "price source" */
export const keyLabel = (key) =>
  key.startsWith("tag:") ? key.slice("tag:".length) : (DIMENSIONS[key] ?? key);

/** The same at the beginning of a line: "Feature"; less common tags as they are written. */
export function keyTitle(key) {
  const label = keyLabel(key);
  const isWord = key in DIMENSIONS || COMMON_TAGS.includes(label);
  return isWord ? label[0].toUpperCase() + label.slice(1) : label;
}

/** What calls can be grouped and filtered by: all dimensions and tags, the common ones first. */
export function keys({ dimensions, tag_keys: tags }) {
  const common = COMMON_TAGS.filter((key) => tags.includes(key));
  const others = tags.filter((key) => !COMMON_TAGS.includes(key));
  return [
    "model",
    ...[...common, ...others].map((key) => `tag:${key}`),
    ...dimensions.filter((key) => key !== "model"),
  ];
}

/** What stands for calls without the key. */
export const absent = (key) => (key?.startsWith("tag:") ? "(not set)" : "(unknown)");

/** A value with its name, for text that is read out. */
export function valueLabel(value, key) {
  if (value === null) return absent(key);
  return value === "" ? "(empty)" : value;
}
