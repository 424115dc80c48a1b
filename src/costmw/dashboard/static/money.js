/**
 * Money comes as decimal strings and is shown from them: whole pico-USD in a BigInt, no float.
 */

const PLACES = 12;
const DOLLAR = 10n ** BigInt(PLACES);

/**
 * "0.0125" -> 12500000000n
 * @param {string} text
 */
export function pico(text) {
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
  const size = amount < 0n ? -amount : amount;
  const zeros = size === 0n || size >= DOLLAR ? -1 : PLACES - String(size).length;
  const places = Math.min(zeros + 3, PLACES);
  const hasCents = size % (DOLLAR / 100n) === 0n;
  return written(amount < 0n, rounded(size, places), hasCents ? 2 : places);
}

/** All digits. */
export function exactUsd(text) {
  if (text === null) return "unknown";
  const amount = pico(text);
  return written(amount < 0n, amount < 0n ? -amount : amount);
}

/** For the length of bars and nothing else. */
export function pixels(text) {
  return text === null ? null : Number(text);
}

/** How much more `now` is than `before`, as "12.4%"; null when there is nothing to compare. */
export function change(now, before) {
  if (now === null || before === null || pico(before) === 0n) return null;
  const tenths = ((pico(now) - pico(before)) * 1000n) / pico(before);
  const size = tenths < 0n ? -tenths : tenths;
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
  const fraction = String(size % DOLLAR).padStart(PLACES, "0").replace(/0+$/, "");
  return `${isNegative ? "−" : ""}$${whole}.${fraction.padEnd(places, "0")}`;
}
