/** The page: ask, draw, and ask again. Its state is the address. */

import { onChange, question } from "./address.js";
import { getOverview, getStatus, Problem } from "./api.js";
import { forget } from "./charts.js";
import { byId, el, replace } from "./dom.js";
import { clock, setTimeZone, timeZone } from "./format.js";
import { repeat } from "./poll.js";
import { showAnomalies } from "./views/anomalies.js";
import { showBreakdown } from "./views/breakdown.js";
import { onBudgets } from "./views/budget_form.js";
import { showBudgets } from "./views/budgets.js";
import { olderCalls, showCalls } from "./views/calls.js";
import { showControls } from "./views/controls.js";
import { showCoverage } from "./views/coverage.js";
import { showDetail } from "./views/detail.js";
import { emptiness, showEmptiness } from "./views/empty.js";
import { showExports } from "./views/exports.js";
import { showFilters } from "./views/filters.js";
import { chooseTheme, keepFresh, showScope } from "./views/header.js";
import { showKpis } from "./views/kpis.js";
import { showNotices } from "./views/notices.js";
import { showOutcomes } from "./views/outcomes.js";
import { showRecording } from "./views/recording.js";
import { showSpeed } from "./views/speed.js";
import { showTokens } from "./views/tokens.js";
import { showTrend } from "./views/trend.js";

const INTERVAL = 12_000; // with the 2 s that answers are shared for, below 15

const IN_THE_PAGE = { title: "The page met an error", message: "The console says which." };

/** What is shown: an answer, and to which question it is one. */
const shown = {
  asked: null,
  etag: null,
  overview: null,
  status: null,
  page: null,
  emptiness: null,
  updated: 0,
};

let pending = new AbortController();

/** Ask for what is new and draw it; a failure is shown and leaves what there is. */
async function refresh() {
  pending.abort();
  const { signal } = (pending = new AbortController());
  try {
    await load(signal);
    showProblem(null);
  } catch (error) {
    if (error.name === "AbortError") return;
    showProblem(error);
    if (!(error instanceof Problem)) throw error;
  } finally {
    if (!signal.aborted) byId("views").removeAttribute("aria-busy");
  }
}

async function load(signal) {
  const asked = question().toString();
  const isKnown = asked === shown.asked;
  const [{ overview, etag }, status, page] = await Promise.all([
    getOverview(asked, isKnown ? shown.etag : null, signal),
    getStatus(signal).then(showRecording), // whether the store can be read or not
    olderCalls(signal),
  ]);
  const empty = overview ? await emptiness(overview, signal) : shown.emptiness;
  signal.throwIfAborted();
  Object.assign(shown, { asked, etag, status, page, emptiness: empty, updated: Date.now() });
  if (overview) shown.overview = overview;
  draw();
}

function draw() {
  const { overview, status, page } = shown;
  if (!overview) return;
  setTimeZone(overview.question.time_zone);
  document.body.classList.remove("loading");
  byId("views").hidden = shown.emptiness === "first";
  byId("time-zone").textContent = `Days and times in ${timeZone()}.`;
  showScope(status.scope);
  showNotices(overview, status);
  showFreshness();
  showEmptiness(shown.emptiness, status);
  showControls(overview);
  showFilters(overview);
  if (shown.emptiness === "first") return;
  showKpis(overview);
  showTrend(overview);
  showBreakdown(overview);
  showBudgets(overview, status, draw);
  showAnomalies(overview);
  showTokens(overview);
  showSpeed(overview);
  showOutcomes(overview);
  showCoverage(overview);
  showCalls(overview, page);
  showExports(overview);
  showCall();
}

function showCall() {
  const { overview, page } = shown;
  if (overview) void showDetail(page ? page.calls : overview.calls);
}

const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

function showProblem(error) {
  const banner = byId("problem");
  banner.hidden = !error;
  if (!error) return replace(banner);
  const since = shown.updated ? ` The numbers are from ${clock(shown.updated)}.` : "";
  const { title, message } = error instanceof Problem ? error : IN_THE_PAGE;
  const told = el("span", {}, el("strong", {}, `${title}.`), ` ${message}${since}`);
  // An alert is read out whenever it changes: once is enough.
  if (banner.firstElementChild?.textContent === told.textContent) return undefined;
  const isOurs = error.status === 400;
  const again = isOurs
    ? el("button", { type: "button", class: "plain", onclick: startOver }, "Start over")
    : el("button", { type: "button", class: "plain", onclick: () => void now() }, "Try now");
  return replace(banner, told, again);
}

/** Leave a view that cannot be asked for. */
const startOver = () => location.assign(location.pathname);

const showFreshness = keepFresh(() => shown.updated);
const now = repeat(INTERVAL, refresh);

onChange((before, after) => {
  showFilters();
  const isNew = question().toString() !== shown.asked || before.before !== after.before;
  if (!isNew) return isSame({ ...before, call: after.call }, after) ? showCall() : draw();
  byId("views").setAttribute("aria-busy", "true");
  return void now();
});
onBudgets(() => {
  shown.etag = null;
  void now();
});
chooseTheme(() => {
  forget();
  draw();
});
