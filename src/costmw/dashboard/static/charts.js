/**
 * Drawing with Chart.js. Colours are those of the style sheet.
 */

/** Charts, and what each was last told to draw.
 * @type {Map<HTMLCanvasElement, object>} */
const drawn = new Map();
const told = new WeakMap();
let colors = new Map();

/** The library, from when the page has first been painted: nothing waits for it but charts. */
const library = new Promise((painted) => {
  requestAnimationFrame(() => setTimeout(painted));
}).then(() => import("./vendor/chart.umd.min.js"));

/**
 * A set of values to draw; null leaves a gap.
 * @typedef {{label: string, values: (number|null)[], color: string, type: "bar"|"line",
 *   hatched?: boolean, dash?: number[], marker?: boolean, filled?: boolean, point?: string}} Dataset
 */

/**
 * Bars and lines over the same spans of time.
 * @param {HTMLCanvasElement} canvas
 * @param {{labels: string[], datasets: Dataset[], isStacked: boolean, tick: (n: number) => string,
 *   band: ([number, number]|null)[], hover: (index: number|null, x: number, y: number) => void,
 *   choose: (index: number, isTouch: boolean) => void}} drawing
 *   `band`: from where to where a forecast may go; `hover`: what the pointer or the keys are at
 */
export async function draw(canvas, drawing) {
  told.set(canvas, drawing);
  await library;
  if (told.get(canvas) !== drawing) return;
  const data = { labels: drawing.labels, datasets: drawing.datasets.map(dataset) };
  const chart = drawn.get(canvas);
  if (!chart) {
    drawn.set(canvas, new Chart(canvas, { type: "bar", data, options: options(canvas), plugins }));
    performance.mark("drawn");
    return;
  }
  const { x, y } = scales(canvas);
  Object.assign(chart.options.scales.x, x);
  Object.assign(chart.options.scales.y, y);
  chart.data = data;
  chart.update("none");
}

/** What of the scales changes from one drawing to the next. */
function scales(canvas) {
  const { isStacked, tick, band } = told.get(canvas);
  const suggestedMax = Math.max(0, ...band.map((span) => span?.[1] ?? 0));
  return {
    x: { stacked: isStacked },
    y: { stacked: isStacked, suggestedMax, ticks: { ...text(), maxTicksLimit: 6, callback: tick } },
  };
}

/** Point at one span of time as the pointer would; null at none. */
export function point(canvas, index) {
  const chart = drawn.get(canvas);
  if (!chart) return;
  const isThere = (meta) => index !== null && meta.data[index] && !meta.data[index].skip;
  const active = chart
    .getSortedVisibleDatasetMetas()
    .filter(isThere)
    .map((meta) => ({ datasetIndex: meta.index, index }));
  chart.setActiveElements(active);
  chart.tooltip.setActiveElements(active, { x: 0, y: 0 });
  chart.update("none");
}

/** Take the colours anew, when the theme has changed: what is drawn next starts afresh. */
export function forget() {
  for (const chart of drawn.values()) chart.destroy();
  drawn.clear();
  colors = new Map();
}

function dataset({
  label,
  values,
  color: name,
  type,
  hatched,
  dash,
  marker,
  filled,
  point: style,
}) {
  const stroke = color(name);
  const shared = { label, data: values, type, order: type === "line" && !filled ? 0 : 1 };
  if (type === "bar") {
    const fill = hatched ? hatch(stroke) : stroke;
    return {
      ...shared,
      backgroundColor: fill,
      hoverBackgroundColor: fill,
      borderColor: color("card"),
      borderWidth: { top: 1 },
      borderSkipped: false,
      maxBarThickness: 40,
      categoryPercentage: 0.86,
      barPercentage: 0.94,
      stack: "all",
    };
  }
  return {
    ...shared,
    stack: filled ? "all" : label,
    fill: filled ? "stack" : false,
    borderColor: filled ? color("card") : stroke,
    backgroundColor: stroke,
    borderWidth: filled ? 1 : dash ? 1.5 : 2,
    borderDash: dash ?? [],
    showLine: !marker,
    pointStyle: marker ? "triangle" : (style ?? "circle"),
    pointRadius: marker ? 6 : dash || filled || values.length > 60 ? 0 : 2.5,
    pointHoverRadius: marker ? 8 : filled ? 0 : 4,
    spanGaps: true,
    tension: 0,
  };
}

function options(canvas) {
  const { x, y } = scales(canvas);
  return {
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    interaction: { mode: "index", intersect: false },
    scales: {
      x: {
        grid: { display: false },
        border: { color: color("line") },
        ticks: { ...text(), maxRotation: 0, autoSkipPadding: 20 },
        ...x,
      },
      y: { beginAtZero: true, grid: { color: color("line") }, border: { display: false }, ...y },
    },
    onClick: (event, _, chart) => {
      const [found] = chart.getElementsAtEventForMode(event, "index", { intersect: false }, true);
      if (found) told.get(canvas).choose(found.index, event.native.pointerType === "touch");
    },
    plugins: {
      legend: { display: false },
      tooltip: { enabled: false, position: "nearest", external: (shown) => pointAt(canvas, shown) },
    },
  };
}

function pointAt(canvas, { chart, tooltip }) {
  const at = tooltip.opacity ? tooltip.dataPoints?.[0] : null;
  told.get(canvas).hover(at ? at.dataIndex : null, tooltip.caretX, chart.chartArea.top);
}

const text = () => ({
  color: color("muted"),
  font: { family: getComputedStyle(document.body).fontFamily, size: 11 },
});

/** Behind everything: the span that is pointed at. Over everything: how far a forecast may be off. */
const plugins = [
  {
    id: "pointed",
    beforeDatasetsDraw(chart) {
      const [active] = chart.getActiveElements();
      if (!active) return;
      const { ctx, chartArea, scales } = chart;
      const step = chartArea.width / Math.max(1, chart.data.labels.length);
      ctx.save();
      ctx.fillStyle = color("pointed");
      ctx.fillRect(
        scales.x.getPixelForValue(active.index) - step / 2,
        chartArea.top,
        step,
        chartArea.height,
      );
      ctx.restore();
    },
  },
  {
    id: "band",
    afterDatasetsDraw(chart) {
      const { ctx, scales } = chart;
      ctx.save();
      ctx.strokeStyle = color("muted");
      ctx.lineWidth = 1;
      told.get(chart.canvas).band.forEach((span, n) => {
        if (!span) return;
        const x = Math.round(scales.x.getPixelForValue(n)) + 0.5;
        const [low, high] = span.map((one) => Math.round(scales.y.getPixelForValue(one)) + 0.5);
        ctx.beginPath();
        for (const y of [low, high]) {
          ctx.moveTo(x - 3, y);
          ctx.lineTo(x + 3, y);
        }
        ctx.moveTo(x, low);
        ctx.lineTo(x, high);
        ctx.stroke();
      });
      ctx.restore();
    },
  },
];

/** A colour of the style sheet by its name, as the browser resolves it for this theme. */
function color(name) {
  if (!colors.has(name)) {
    const probe = document.createElement("span");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    colors.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return colors.get(name);
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
