/** Where tokens went: input by how it was read, output by what it was for; and what caches saved. */

import { bar, byId, el, replace, swatch } from "../dom.js";
import { percent, short, whole } from "../format.js";
import { exactUsd, usd } from "../money.js";
import { fill, head, number, row } from "../tables.js";

/** Draw the bar and the table that explains it. */
export function showTokens({ summary: { sums, cache } }) {
  const kinds = kindsOf(sums);
  const total = sums.input_tokens + sums.output_tokens;
  const share = (count) => (total ? count / total : 0);
  byId("tokens-bar").setAttribute(
    "aria-label",
    kinds.map(([label, , count]) => `${label}: ${percent(share(count))}`).join("; "),
  );
  replace(
    byId("tokens-bar"),
    ...kinds
      .filter(([, , count]) => count > 0)
      .map(([, color, count]) => colored(bar(share(count)), color)),
  );
  fill(
    byId("tokens-table"),
    kinds.map(([label, color, count]) =>
      row(
        head(swatch(color), label),
        number(short(count), { title: whole(count) }),
        number(percent(share(count))),
      ),
    ),
  );
  replace(byId("cache-savings"), ...savings(cache));
}

function kindsOf(sums) {
  const {
    cache_read_input_tokens: read,
    cache_write_input_tokens: written,
    reasoning_output_tokens: reasoning,
  } = sums;
  return [
    ["Input, not cached", "uncached", Math.max(0, sums.input_tokens - read - written)],
    ["Input, read from cache", "cache-read", read],
    ["Input, written to cache", "cache-write", written],
    ["Output, text", "output", sums.output_tokens - reasoning],
    ["Output, reasoning", "reasoning", reasoning],
  ];
}

function savings(cache) {
  if (!cache) return [];
  const { saved_usd: saved, read_share: share } = cache;
  if (saved.startsWith("-")) {
    return [
      `Writing to caches cost about ${usd(saved.slice(1))} more than reading from them saved.`,
    ];
  }
  return [
    "Caches saved about ",
    el("strong", { title: exactUsd(saved) }, usd(saved)),
    `; ${percent(share)} of the input came from them.`,
  ];
}

function colored(fill, color) {
  fill.style.setProperty("--swatch", `var(--${color})`);
  return fill;
}
