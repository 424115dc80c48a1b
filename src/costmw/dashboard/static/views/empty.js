/** When there is nothing to show: no call yet at all, or none that matches. */

import { current, go } from "../address.js";
import { getCalls } from "../api.js";
import { byId } from "../dom.js";

/** Whether there was ever a call that this reader may see; asked for until there is one. */
let isUsed = false;

/** @returns {Promise<"first"|"none"|null>} null when there are calls to show */
export async function emptiness(overview, signal) {
  if (overview.calls.length || overview.summary.sums.calls) {
    isUsed = true;
    return null;
  }
  if (!isUsed) isUsed = (await getCalls("limit=1", signal)).calls.length > 0;
  return isUsed ? "none" : "first";
}

/** Say it. */
export function showEmptiness(emptiness, { scope }) {
  const isScoped = Object.keys(scope).length > 0;
  byId("empty").hidden = emptiness !== "first";
  byId("empty-setup").hidden = isScoped;
  byId("empty-scope").hidden = !isScoped;
  byId("none").hidden = emptiness !== "none";
  byId("none-filters").hidden = current().filters.length === 0;
}

byId("none-filters").addEventListener("click", () => go({ filters: [], before: null }));
byId("none-range").addEventListener("click", () =>
  go({ range: "12m", from: null, to: null, every: "auto", before: null }),
);
