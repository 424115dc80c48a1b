/** Where tokens went: input by how it was read, output by what it was for. */

import { bar, byId, el, replace } from "../dom.js";
import { percent, short, whole } from "../format.js";
import { fill, head, number, row } from "../tables.js";

/** Draw the bar and the table that explains it. */
export function showTokens({ tokens }) {
  const kinds = [
    ["Input, not cached", "uncached", tokens.uncached_input_tokens],
    ["Input, read from cache", "cache-read", tokens.cache_read_input_tokens],
    ["Input, written to cache", "cache-write", tokens.cache_write_input_tokens],
    ["Output, text", "output", tokens.output_tokens - tokens.reasoning_output_tokens],
    ["Output, reasoning", "reasoning", tokens.reasoning_output_tokens],
  ];
  const total = tokens.input_tokens + tokens.output_tokens;
  const share = (count) => (total ? count / total : 0);
  const summary = summed(tokens, total);
  byId("tokens-summary").textContent = summary;
  byId("tokens-bar").setAttribute("role", "img");
  byId("tokens-bar").setAttribute("aria-label", summary);
  replace(
    byId("tokens-bar"),
    ...kinds.filter(([, , count]) => count > 0).map(([, kind, count]) => bar(share(count), kind)),
  );
  fill(
    byId("tokens-table"),
    kinds.map(([label, kind, count]) =>
      row(
        head(el("span", { class: `swatch ${kind}` }, label)),
        number(whole(count), { title: short(count) }),
        number(percent(share(count))),
      ),
    ),
  );
}

function summed(tokens, total) {
  if (!total) return "No tokens in these 30 days.";
  const cached = tokens.input_tokens ? tokens.cache_read_input_tokens / tokens.input_tokens : 0;
  return (
    `${short(total)} tokens: ${short(tokens.input_tokens)} in, ${percent(cached)} of them from ` +
    `cache, and ${short(tokens.output_tokens)} out.`
  );
}
