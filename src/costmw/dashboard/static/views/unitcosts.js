/** What a call and a web request cost, day by day. */

import { lines } from "../charts.js";
import { byId, el, replace } from "../dom.js";
import { counted, day, longDay, whole } from "../format.js";
import { pixels, usd } from "../money.js";
import { fill, head, money, number, row } from "../tables.js";

/** Draw the chart and its table. */
export function showUnitCosts({ unit_costs: { points }, by_model: { total } }) {
  const requests = points.some((point) => point.cost_per_request_usd !== null);
  replace(
    byId("unit-legend"),
    el("li", { class: "swatch call" }, "per call"),
    requests ? el("li", { class: "swatch request" }, "per web request") : null,
  );
  const summary = summed(total);
  byId("unit-summary").textContent = summary;
  lines(byId("unit-chart"), {
    summary,
    labels: points.map((point) => day(point.start)),
    series: [
      {
        label: "per call",
        values: points.map((point) => pixels(point.cost_per_call_usd)),
        color: "exact",
        point: "circle",
      },
      {
        label: "per web request",
        values: points.map((point) => pixels(point.cost_per_request_usd)),
        color: "second",
        point: "rectRot",
      },
    ],
    title: (n) => longDay(points[n].start),
    lines: (n) => told(points[n]),
  });
  fill(
    byId("unit-table"),
    [...points].reverse().map((point) =>
      row(
        head(longDay(point.start)),
        money(point.cost_per_call_usd),
        money(point.cost_per_request_usd),
        number(whole(point.calls)),
        number(whole(point.requests)),
      ),
    ),
  );
}

function told(point) {
  return [
    `${usd(point.cost_per_call_usd)} per call, ${counted(point.calls, "call")}`,
    point.cost_per_request_usd === null
      ? null
      : `${usd(point.cost_per_request_usd)} per web request, ${counted(point.requests, "request")}`,
  ].filter(Boolean);
}

function summed(total) {
  if (total.cost_per_call_usd === null) return "No call with a price in these 30 days.";
  const request =
    total.cost_per_request_usd === null
      ? ""
      : `, a web request with calls ${usd(total.cost_per_request_usd)}`;
  return `On average a call cost ${usd(total.cost_per_call_usd)}${request}.`;
}
