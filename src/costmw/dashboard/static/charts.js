/** Drawing with Chart.js, which the page loads before. Colours are those of the style sheet. */

/* global Chart */

/** @type {Map<HTMLCanvasElement, object>} */
const drawn = new Map();

/**
 * A set of values to draw; null leaves a gap.
 * @typedef {{label: string, values: (number|null)[], color: string, hatched?: boolean,
 *   point?: string}} Series
 */

/**
 * Stacked bars.
 * @param {HTMLCanvasElement} canvas
 * @param {{labels: string[], series: Series[], title: (i: number) => string,
 *   lines: (i: number) => string[], summary: string}} chart
 *   `title` and `lines` give the text shown on hover
 */
export function bars(canvas, chart) {
  draw(canvas, "bar", chart, (series) => ({
    backgroundColor: series.hatched ? hatch(color(series.color)) : color(series.color),
    borderRadius: 2,
    maxBarThickness: 32,
    stack: "all",
  }));
}

/** Lines, with dashes over days that have no value. */
export function lines(canvas, chart) {
  draw(canvas, "line", chart, (series) => ({
    borderColor: color(series.color),
    backgroundColor: color(series.color),
    borderWidth: 2,
    pointRadius: 3,
    pointHoverRadius: 5,
    pointStyle: series.point,
    spanGaps: true,
    segment: {
      borderDash: (part) => (part.p1DataIndex - part.p0DataIndex > 1 ? [3, 4] : undefined),
    },
  }));
}

/** Take the colours anew, when the theme has changed: what is drawn next starts afresh. */
export function forget() {
  for (const chart of drawn.values()) chart.destroy();
  drawn.clear();
}

function draw(canvas, type, { labels, series, title, lines, summary }, style) {
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", summary);
  const datasets = series.map((one) => ({ label: one.label, data: one.values, ...style(one) }));
  const chart = drawn.get(canvas) ?? new Chart(canvas, { type, options: options(type) });
  drawn.set(canvas, chart);
  chart.data = { labels, datasets };
  Object.assign(chart.options.plugins.tooltip.callbacks, {
    title: ([item]) => (item ? title(item.dataIndex) : ""),
    label: () => null,
    afterBody: ([item]) => (item ? lines(item.dataIndex) : []),
  });
  chart.update("none");
}

function options(type) {
  const muted = color("muted");
  const font = { family: getComputedStyle(document.body).fontFamily, size: 12 };
  return {
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    interaction: { mode: "index", intersect: false },
    scales: {
      x: {
        stacked: type === "bar",
        grid: { display: false },
        border: { color: color("line") },
        ticks: { color: muted, font, maxRotation: 0, autoSkipPadding: 16 },
      },
      y: {
        stacked: type === "bar",
        beginAtZero: true,
        grid: { color: color("line") },
        border: { display: false },
        ticks: { color: muted, font, maxTicksLimit: 6, callback: tick },
      },
    },
    plugins: {
      legend: { display: false },
      tooltip: {
        backgroundColor: color("tip"),
        titleColor: color("tip-text"),
        bodyColor: color("tip-text"),
        titleFont: { ...font, weight: "600" },
        bodyFont: font,
        padding: 10,
        cornerRadius: 6,
        displayColors: false,
        callbacks: {},
      },
    },
  };
}

/** The text of a round amount beside the axis, with the digits that the steps need. */
function tick(amount, index, ticks) {
  const step = ticks.length > 1 ? ticks[1].value - ticks[0].value : 1;
  const places = Number.isInteger(step) ? 0 : Math.max(2, Math.ceil(-Math.log10(step) - 1e-9));
  return `$${amount.toLocaleString("en", { minimumFractionDigits: places })}`;
}

/** A colour of the style sheet by its name, as the browser resolves it for this theme. */
function color(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const resolved = getComputedStyle(probe).color;
  probe.remove();
  return resolved;
}

/** Stripes: told from the plain colour without seeing colours. */
function hatch(stroke) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const pen = tile.getContext("2d");
  pen.strokeStyle = stroke;
  pen.lineWidth = 1.5;
  for (const offset of [-6, 0, 6]) {
    pen.moveTo(offset, 6);
    pen.lineTo(offset + 6, 0);
  }
  pen.stroke();
  return pen.createPattern(tile, "repeat");
}
