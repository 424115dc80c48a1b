/** How much is known of the calls: their price, and whom they were for; and how to mend the rest. */

import { bar, byId, el, replace, value } from "../dom.js";
import { filterBy } from "../drill.js";
import { percent, whole } from "../format.js";
import { exactUsd, usd } from "../money.js";

const HOW = {
  feature: '@metered(feature="…")',
  team: 'Meter(tags={"team": "…"})',
  tenant: 'bind(tenant="…")',
  user: 'bind(user="…")',
  route: "app.add_middleware(CostMiddleware, meter=meter)",
};

/** Draw the shares, and what is missing. */
export function showCoverage({ summary: { sums, untagged, coverage } }) {
  const tagged = untagged.filter(({ calls }) => calls === 0).map(({ key }) => key);
  replace(
    byId("coverage"),
    share("Calls with a price", sums.calls ? percent(coverage.priced_share) : "—"),
    share("Cost that is exact", sums.calls ? percent(coverage.exact_share) : "—"),
    sums.calls && tagged.length ? share("On every call", tagged.join(", ")) : null,
  );
  replace(byId("untagged"), ...untagged.filter(({ calls }) => calls > 0).map(missing));
}

const share = (label, text) => el("li", {}, label, el("strong", { class: "figures" }, text));

function missing({ key, calls, share, cost_usd: cost }) {
  const onclick = () => filterBy(`tag:${key}`, null);
  return el(
    "li",
    {},
    el(
      "span",
      { class: "line" },
      el(
        "button",
        { type: "button", class: "link", "data-key": `untagged ${key}`, onclick },
        "Without ",
        value(key),
      ),
      el(
        "span",
        { title: `${whole(calls)} calls, ${exactUsd(cost)}` },
        el("strong", {}, percent(share)),
        ` · ${usd(cost)}`,
      ),
    ),
    el("span", { class: "track", "aria-hidden": "true" }, bar(share, "near")),
    el("span", { class: "muted" }, "to mend: ", el("code", {}, HOW[key] ?? `tag(${key}="…")`)),
  );
}
