/** A small drawing of how something went: no axis, no text, for the eye alone. */

import { svg } from "./dom.js";

const [WIDTH, HEIGHT, EDGE] = [120, 28, 2];

/** A line through values; null leaves them out. Nothing for fewer than two. */
export function sparkline(values) {
  const known = values.filter((one) => one !== null);
  if (known.length < 2) return null;
  const top = Math.max(...known) || 1;
  const x = (n) => (n * WIDTH) / (values.length - 1);
  const y = (one) => HEIGHT - EDGE - (one / top) * (HEIGHT - 2 * EDGE);
  const points = values.flatMap((one, n) => (one === null ? [] : [[x(n), y(one)]]));
  const line = points.map((point) => point.map((at) => at.toFixed(1)).join(",")).join(" ");
  const area = `${points[0][0].toFixed(1)},${HEIGHT} ${line} ${points.at(-1)[0].toFixed(1)},${HEIGHT}`;
  return svg(
    "svg",
    {
      class: "sparkline",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    },
    svg("polygon", { points: area }),
    svg("polyline", { points: line, "vector-effect": "non-scaling-stroke" }),
  );
}
