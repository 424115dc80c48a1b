/** What happened that bills nothing: errors, retries, refusals, and their share of all attempts. */

import { byId, el, replace } from "../dom.js";
import { percent, whole } from "../format.js";
import { fill, head, name, number, numberDelta, row } from "../tables.js";

const KINDS = {
  error: "Failed at the provider",
  retry: "Tried again",
  refused: "Refused by a budget",
  capture_fault: "Not recorded, our fault",
};

/** Draw the shares, and the table of where. */
export function showOutcomes({
  outcomes,
  summary: { sums, outcomes: counts, previous_outcomes: before },
}) {
  const attempts = sums.calls + (counts ? counts.error + counts.retry + counts.refused : 0);
  replace(
    byId("outcome-shares"),
    ...(counts
      ? Object.entries(KINDS).map(([kind, label]) =>
          share(label, counts[kind], attempts, before?.[kind] ?? null),
        )
      : []),
  );
  byId("outcomes-note").hidden = counts !== null;
  byId("outcomes-details").hidden = outcomes.length === 0;
  fill(
    byId("outcomes-table"),
    outcomes.map((outcome) =>
      row(
        head(KINDS[outcome.kind] ?? outcome.kind),
        name(outcome.provider, "(unknown)"),
        name(outcome.model, "(unknown)"),
        number(whole(outcome.count)),
      ),
    ),
    "No errors, retries or refusals in this time.",
  );
}

function share(label, count, attempts, before) {
  return el(
    "li",
    { class: count ? "" : "muted" },
    el("span", {}, label),
    " ",
    el("strong", {}, whole(count)),
    " ",
    el("span", { class: "muted" }, percent(attempts ? count / attempts : 0)),
    " ",
    el("span", {}, count ? numberDelta(count, before) : null),
  );
}
