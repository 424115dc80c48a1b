/** Which colour a value has: it keeps it while values come and go around it. */

const COLORS = 9;

let key = null;
let taken = new Map();

/**
 * Give colours to values, the largest first; beyond nine they have none of their own.
 * @param {string|null} by what is grouped by: another key starts anew
 * @param {(string|null)[]} values
 */
export function assign(by, values) {
  if (by !== key) taken = new Map();
  key = by;
  const shown = values.slice(0, COLORS);
  for (const value of taken.keys()) if (!shown.includes(value)) taken.delete(value);
  const free = [...Array(COLORS).keys()].filter((n) => ![...taken.values()].includes(n));
  for (const value of shown) if (!taken.has(value)) taken.set(value, free.shift());
}

/** The name of a value's colour in the style sheet. */
export const colorOf = (value) => (taken.has(value) ? `series-${taken.get(value) + 1}` : "other");
