/** What the numbers leave out, and whether recording goes well. */

import { byId, el, replace, value } from "../dom.js";
import { counted, percent, whole } from "../format.js";

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

function coverage({ summary: { sums, coverage: known } }) {
  const { unpriced_calls: unpriced, models, priced_share: priced } = known;
  const notices = [];
  if (unpriced) {
    const names = models
      .slice(0, 5)
      .flatMap(({ model, calls }, n) => [
        n ? ", " : " ",
        model === null ? "unknown" : value(model, { class: "name" }),
        ` (${whole(calls)})`,
      ]);
    notices.push({
      short: counted(unpriced, "unpriced call"),
      text: [
        el("strong", {}, counted(unpriced, "call")),
        ` of this time (${percent(1 - priced)}) have no price, so what they cost is missing here. Models:`,
        ...names,
        ". Each call says why. A price of your own counts from then on.",
      ],
    });
  }
  if (sums.incomplete_calls) {
    notices.push({
      short: counted(sums.incomplete_calls, "incomplete call"),
      text: [
        el("strong", {}, counted(sums.incomplete_calls, "call")),
        " did not reach an end with known usage. What they cost is estimated, or unknown.",
      ],
    });
  }
  if (sums.flagged_calls) {
    notices.push({
      short: `${counted(sums.flagged_calls, "call")} in part`,
      text: [
        el("strong", {}, counted(sums.flagged_calls, "call")),
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
