/** Spend by day: exact money, and on top of it what is estimated. */

import { bars } from "../charts.js";
import { byId, el, replace } from "../dom.js";
import { counted, day, longDay, whole } from "../format.js";
import { isSome, pico, pixels, usd } from "../money.js";
import { fill, head, isUnknown, money, number, row } from "../tables.js";

/** Draw the chart and its table. */
export function showTrend({ trend: { points }, by_model: { total } }) {
  const estimated = points.some(({ sums }) => isSome(sums.estimated_cost_usd));
  replace(
    byId("trend-legend"),
    el("li", { class: "swatch exact" }, "exact ", el("strong", {}, usd(total.cost_usd))),
    estimated
      ? el(
          "li",
          { class: "swatch estimated" },
          "estimated ",
          el("strong", {}, usd(total.estimated_cost_usd)),
        )
      : null,
  );
  const summary = summed(points, total);
  byId("trend-summary").textContent = summary;
  bars(byId("trend-chart"), {
    summary,
    labels: points.map((point) => day(point.start)),
    series: [
      {
        label: "exact",
        values: points.map(({ sums }) => pixels(sums.cost_usd)),
        color: "exact",
      },
      {
        label: "estimated",
        values: points.map(({ sums }) => pixels(sums.estimated_cost_usd)),
        color: "estimated",
        hatched: true,
      },
    ],
    title: (n) => longDay(points[n].start),
    lines: (n) => told(points[n].sums),
  });
  fill(
    byId("trend-table"),
    [...points].reverse().map(({ start, sums }) =>
      row(
        head(longDay(start)),
        isUnknown(sums) ? number("—") : money(sums.cost_usd),
        isUnknown(sums) ? number("—") : money(sums.estimated_cost_usd),
        number(whole(sums.calls)),
        number(whole(sums.unpriced_calls)),
      ),
    ),
  );
}

function told(sums) {
  return [
    isUnknown(sums) ? null : `${usd(sums.cost_usd)} exact`,
    isSome(sums.estimated_cost_usd) ? `${usd(sums.estimated_cost_usd)} estimated` : null,
    counted(sums.calls, "call"),
    sums.unpriced_calls ? `${whole(sums.unpriced_calls)} without a price` : null,
  ].filter(Boolean);
}

function summed(points, total) {
  const dearest = points.reduce((a, b) =>
    pico(b.sums.total_usd) > pico(a.sums.total_usd) ? b : a,
  );
  if (!isSome(total.total_usd)) return "Nothing with a price in these 30 days.";
  return (
    `${usd(total.total_usd)} in 30 days; the dearest was ${longDay(dearest.start)} ` +
    `with ${usd(dearest.sums.total_usd)}.`
  );
}
