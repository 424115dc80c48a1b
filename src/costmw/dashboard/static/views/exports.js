/** What is displayed, to take away. */

import { question } from "../address.js";
import { byId } from "../dom.js";
import { isoDay } from "../format.js";

const PARTS = ["breakdown", "series", "calls"];

/** Point the links at what is shown now. */
export function showExports({ question: { stop, range } }) {
  for (const part of PARTS) {
    for (const format of ["csv", "json"]) {
      const asked = question({ range: null });
      asked.set("range", range);
      if (part === "calls") asked.set("limit", "200");
      if (format === "csv") asked.set("format", "csv");
      byId(`export-${part}-${format}`).href = `api/v1/${part}?${asked}`;
    }
  }
  const month = isoDay(Date.parse(stop) - 1).slice(0, 7);
  byId("report").href = `report?month=${month}`;
}

byId("print").addEventListener("click", () => {
  byId("exports").hidePopover();
  print();
});
