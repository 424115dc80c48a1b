/** What happened that bills nothing: errors, retries, refusals. */

import { byId } from "../dom.js";
import { whole } from "../format.js";
import { fill, head, name, number, row } from "../tables.js";

const KINDS = {
  error: "Failed at the provider",
  retry: "Tried again",
  refused: "Refused by a budget",
  capture_fault: "Not recorded, our fault",
};

/** Draw the table. */
export function showOutcomes({ outcomes }) {
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
    "No errors, retries or refusals in these 30 days.",
  );
}
