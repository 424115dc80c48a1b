/** Numbers, times and names as text. Days are those of the time zone that is looked at. */

const WHOLE = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", {
  notation: "compact",
  minimumSignificantDigits: 3,
  maximumSignificantDigits: 3,
});
const COMPACT = new Intl.NumberFormat("en", { notation: "compact" });
const PERCENT = new Intl.NumberFormat("en", {
  style: "percent",
  minimumFractionDigits: 1,
  maximumFractionDigits: 1,
});

let zone = "UTC";
let formats = new Map();

/** Show times in this IANA zone; a browser that does not know it shows UTC, and says so. */
export function setTimeZone(name) {
  if (name === zone) return;
  formats = new Map();
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    zone = name;
  } catch {
    zone = "UTC";
  }
}

/** The zone that times are shown in. */
export const timeZone = () => zone;

/** 1234567 -> "1,234,567" */
export const whole = (number) => (number === null ? "—" : WHOLE.format(number));

/** 1234567 -> "1.23M", 1234 -> "1,234" */
export const short = (number) => (number < 10_000 ? WHOLE : SHORT).format(number);

/** 1500000 -> "1.5M", for an axis. */
export const compact = (number) => COMPACT.format(number);

/** 0.125 -> "12.5%" */
export function percent(share) {
  if (share > 0 && share < 0.001) return "<0.1%";
  return PERCENT.format(share);
}

/** "1 call", "2 calls" */
export const counted = (number, noun) => `${whole(number)} ${noun}${number === 1 ? "" : "s"}`;

/** 1234 ms -> "1.23 s", 754000 ms -> "754 s" */
export function duration(milliseconds) {
  if (milliseconds === null) return "—";
  if (milliseconds < 1000) return `${whole(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  return `${seconds < 100 ? seconds.toPrecision(3) : whole(Math.round(seconds))} s`;
}

/** How long ago something was, from its age in milliseconds. */
export function ago(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 2) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3600)} h ago`;
}

/** "in 3 days", "in 5 h": how far ahead a moment is. */
export function ahead(iso, now = Date.now()) {
  const hours = Math.max(0, (Date.parse(iso) - now) / 3_600_000);
  return hours < 48 ? `in ${Math.ceil(hours)} h` : `in ${Math.round(hours / 24)} days`;
}

/** "gen_ai.request" and "cache_read_tokens" with spaces, for reading. */
export const words = (name) => name.replaceAll("_", " ");

/** "14 Nov" */
export const day = (iso) => dated("day", { day: "numeric", month: "short" }, iso);

/** "Sat 14 Nov" */
export const longDay = (iso) =>
  dated("long", { weekday: "short", day: "numeric", month: "short" }, iso).replace(",", "");

/** "November 2026" */
export const month = (iso) => dated("month", { month: "long", year: "numeric" }, iso);

/** "14 Nov 2026" */
export const date = (iso) =>
  dated("date", { day: "numeric", month: "short", year: "numeric" }, iso);

/** "2026-11-14", as addresses have it. */
export function isoDay(moment) {
  const named = { year: "numeric", month: "2-digit", day: "2-digit" };
  return dated("iso", named, moment).split("/").reverse().join("-");
}

/** "09:05" */
export const hour = (iso) =>
  dated("hour", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }, iso);

/** "14 Nov, 09:05:11" */
export const time = (iso) =>
  dated(
    "time",
    {
      day: "numeric",
      month: "short",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
      hourCycle: "h23",
    },
    iso,
  );

/** "09:05:11" */
export const clock = (milliseconds) =>
  dated(
    "clock",
    { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" },
    milliseconds,
  );

function dated(name, options, moment) {
  if (!formats.has(name)) {
    formats.set(name, new Intl.DateTimeFormat("en-GB", { timeZone: zone, ...options }));
  }
  return formats.get(name).format(new Date(moment));
}
