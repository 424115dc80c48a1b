/** What the numbers leave out, and whether recording goes well. */

import { byId, el, replace, value } from "../dom.js";
import { counted, whole } from "../format.js";

/** Show the badge when there is something to say, and what that is when it is opened. */
export function showNotices(overview, status) {
  const notices = [...coverage(overview), ...recording(status)];
  byId("warning").hidden = notices.length === 0;
  byId("warning").textContent = notices.length ? `⚠\uFE0E ${inShort(notices)}` : "";
  replace(byId("notices-list"), ...notices.map(({ text }) => el("li", {}, ...text)));
}

function inShort([first, ...others]) {
  return others.length ? `${first.short} and ${others.length} more` : first.short;
}

function coverage({ by_model: models }) {
  const { unpriced_calls, incomplete_calls, flagged_calls } = models.total;
  const notices = [];
  if (unpriced_calls) {
    const rows = models.rows.filter((row) => row.sums.unpriced_calls);
    const names = rows.slice(0, 5).flatMap((row, n) => [
      n ? ", " : " ",
      row.value === null ? "unknown" : value(row.value, { class: "name" }),
      ` (${whole(row.sums.unpriced_calls)})`,
    ]);
    notices.push({
      short: counted(unpriced_calls, "unpriced call"),
      text: [
        el("strong", {}, counted(unpriced_calls, "call")),
        " of the last 30 days have no price, so what they cost is missing here. Models:",
        ...names,
        ". Each call says why. A price of your own counts from then on.",
      ],
    });
  }
  if (incomplete_calls) {
    notices.push({
      short: counted(incomplete_calls, "incomplete call"),
      text: [
        el("strong", {}, counted(incomplete_calls, "call")),
        " did not reach an end with known usage. What they cost is estimated, or unknown.",
      ],
    });
  }
  if (flagged_calls) {
    notices.push({
      short: `${counted(flagged_calls, "call")} in part`,
      text: [
        el("strong", {}, counted(flagged_calls, "call")),
        " have a cost that leaves something out; each says what.",
      ],
    });
  }
  return notices;
}

function recording({ enabled, meter }) {
  const notices = [];
  if (!enabled) {
    notices.push({
      short: "metering is off",
      text: ["Metering is off: new calls are not recorded."],
    });
  }
  if (!meter) return notices;
  const lost = meter.dropped + meter.rejected;
  if (lost) {
    notices.push({
      short: counted(lost, "lost event"),
      text: [
        el("strong", {}, counted(lost, "event")),
        " could not be recorded since this process started.",
      ],
    });
  }
  const trouble = meter.faults + meter.store_failures;
  if (trouble || meter.last_error) {
    notices.push({
      short: trouble ? counted(trouble, "fault") : "a fault",
      text: [
        "Recording met ",
        el("strong", {}, trouble ? counted(trouble, "error") : "an error"),
        " since this process started; the app was not affected. The last one: ",
        value(meter.last_error ?? "unknown"),
      ],
    });
  }
  return notices;
}
