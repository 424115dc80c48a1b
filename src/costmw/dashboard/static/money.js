/**
 * Money comes as decimal strings and is shown from them: whole pico-USD in a BigInt, no float.
 */

const PLACES = 12;
const DOLLAR = 10n ** BigInt(PLACES);

/**
 * "0.0125" -> 12500000000n
 * @param {string} text
 */
function pico(text) {
  const [, sign, whole, fraction = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text);
  const amount = BigInt(whole + fraction.padEnd(PLACES, "0").slice(0, PLACES));
  return sign ? -amount : amount;
}

/**
 * Rounded for reading: cents from a dollar on, three digits below.
 * @param {string|null} text USD, null when unknown
 */
export function usd(text) {
  if (text === null) return "—";
  const amount = pico(text);
  const size = magnitude(amount);
  const zeros = size === 0n || size >= DOLLAR ? -1 : PLACES - String(size).length;
  const places = Math.min(zeros + 3, PLACES);
  const hasCents = size % (DOLLAR / 100n) === 0n;
  return written(amount < 0n, rounded(size, places), hasCents ? 2 : places);
}

/** All digits. */
export function exactUsd(text) {
  if (text === null) return "unknown";
  const amount = pico(text);
  return written(amount < 0n, magnitude(amount));
}

/** A difference, with its sign. */
export function signedUsd(text) {
  return pico(text) > 0n ? `+${usd(text)}` : usd(text);
}

/** The sum of amounts, as a decimal string; null ones are left out. */
export function sum(...texts) {
  return decimal(texts.reduce((total, text) => (text === null ? total : total + pico(text)), 0n));
}

/** What one of `count` has on average, as a decimal string. */
export const divided = (text, count) => decimal(pico(text) / BigInt(count));

/** For sorting: null comes last. */
export function compareUsd(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  const [x, y] = [pico(a), pico(b)];
  return x < y ? 1 : x > y ? -1 : 0;
}

/** The share of a whole, 0 to 1, for bars and percentages. */
export function shareOf(part, whole) {
  const all = pico(whole);
  return all === 0n ? 0 : Number((pico(part) * 1_000_000n) / all) / 1_000_000;
}

/** For the length of bars and nothing else. */
export function pixels(text) {
  return text === null ? null : Number(text);
}

/** How much more `now` is than `before`, as "12.4%"; null when there is nothing to compare. */
export function change(now, before) {
  if (now === null || before === null || pico(before) === 0n) return null;
  const tenths = ((pico(now) - pico(before)) * 1000n) / pico(before);
  const size = magnitude(tenths);
  return {
    direction: Math.sign(Number(tenths)),
    text: size >= 10000n ? `${size / 1000n + 1n}×` : `${size / 10n}.${size % 10n}%`,
  };
}

/** Whether it is more than nothing. */
export function isSome(text) {
  return text !== null && pico(text) > 0n;
}

function rounded(size, places) {
  const unit = 10n ** BigInt(PLACES - places);
  return ((size + unit / 2n) / unit) * unit;
}

function written(isNegative, size, places = 2) {
  const whole = String(size / DOLLAR).replace(/\B(?=(\d{3})+$)/g, ",");
  return `${isNegative ? "−" : ""}$${whole}.${fraction(size).padEnd(places, "0")}`;
}

function decimal(amount) {
  const size = magnitude(amount);
  return `${amount < 0n ? "-" : ""}${size / DOLLAR}.${fraction(size) || "0"}`;
}

const fraction = (size) =>
  String(size % DOLLAR)
    .padStart(PLACES, "0")
    .replace(/0+$/, "");

const magnitude = (amount) => (amount < 0n ? -amount : amount);
