/** The page: ask, draw, and ask again. Its state is the tag in the address. */

import { getCalls, getOverview, getStatus, Problem } from "./api.js";
import { forget } from "./charts.js";
import { byId, el, replace } from "./dom.js";
import { clock, setTimeZone, timeZone } from "./format.js";
import { repeat } from "./poll.js";
import { firstKey, showModels, showTags } from "./views/breakdown.js";
import { showBudgets } from "./views/budgets.js";
import { showCalls } from "./views/calls.js";
import { chooseTheme, keepFresh, showScope } from "./views/header.js";
import { showKpis } from "./views/kpis.js";
import { showNotices } from "./views/notices.js";
import { showOutcomes } from "./views/outcomes.js";
import { showRecording } from "./views/recording.js";
import { showTokens } from "./views/tokens.js";
import { showTrend } from "./views/trend.js";
import { showUnitCosts } from "./views/unitcosts.js";

const INTERVAL = 15_000;
const CALLS_SHOWN = [20, 50, 100, 200];

const IN_THE_PAGE = { title: "The page met an error", message: "The console says which." };

const state = {
  overview: null,
  status: null,
  calls: null,
  etag: null,
  shownTag: null,
  callsShown: 0,
  updated: 0,
  pending: new AbortController(),
};

const tagInAddress = () => new URLSearchParams(location.search).get("tag");

/** Ask for what is new and draw it; a failure is shown and leaves what there is. */
async function refresh() {
  state.pending.abort();
  const { signal } = (state.pending = new AbortController());
  try {
    await load(tagInAddress() ?? state.shownTag ?? "feature", signal);
    showProblem(null);
  } catch (error) {
    if (error.name === "AbortError") return;
    showProblem(error);
    if (!(error instanceof Problem)) throw error;
  }
}

async function load(tag, signal) {
  const [{ overview, etag }, status] = await Promise.all([
    getOverview(tag, tag === state.shownTag ? state.etag : null, signal),
    getStatus(signal).then(showRecording),  // whether the store can be read or not
  ]);
  if (overview && !state.overview && !tagInAddress()) {
    const better = firstKey(overview.tag_keys);
    if (better !== tag && overview.tag_keys.length) {
      state.shownTag = better;
      return load(better, signal);
    }
  }
  const limit = CALLS_SHOWN[state.callsShown];
  const isLonger = state.callsShown > 0 && (overview || state.calls?.length !== limit);
  const longer = isLonger ? (await getCalls(limit, signal)).calls : null;
  signal.throwIfAborted();
  Object.assign(state, { status, etag, shownTag: tag, updated: Date.now() });
  if (overview) Object.assign(state, { overview, calls: longer ?? overview.calls });
  else if (longer) state.calls = longer;
  draw();
}

function draw() {
  const { overview, status } = state;
  if (!overview) return;
  setTimeZone(overview.time_zone);
  const isEmpty = overview.calls.length === 0;
  byId("loading").hidden = true;
  byId("empty").hidden = !isEmpty;
  byId("views").hidden = isEmpty;
  byId("signs").hidden = isEmpty;
  byId("zone").textContent = `Days and times in ${timeZone()}.`;
  showScope(status.scope);
  showNotices(overview, status);
  showFreshness();
  if (isEmpty) {
    const isScoped = Object.keys(status.scope).length > 0;
    byId("empty-setup").hidden = isScoped;
    byId("empty-scope").hidden = !isScoped;
    return;
  }
  showKpis(overview);
  showTrend(overview);
  showModels(overview);
  showTags(overview);
  showUnitCosts(overview);
  showTokens(overview);
  showBudgets(overview, draw);
  showOutcomes(overview);
  showCalls(state.calls);
  const isLast = state.callsShown === CALLS_SHOWN.length - 1;
  byId("calls-more").hidden = isLast || state.calls.length < CALLS_SHOWN[state.callsShown];
}

function showProblem(error) {
  const banner = byId("problem");
  banner.hidden = !error;
  if (!error) return replace(banner);
  byId("loading").hidden = true;
  const since = state.updated ? ` The numbers are from ${clock(state.updated)}.` : "";
  const { title, message } = error instanceof Problem ? error : IN_THE_PAGE;
  const told = el("span", {}, el("strong", {}, `${title}.`), ` ${message}${since}`);
  // An alert is read out whenever it changes: once is enough.
  if (banner.firstElementChild?.textContent === told.textContent) return undefined;
  const again = { type: "button", class: "plain", onclick: () => void now() };
  return replace(banner, told, el("button", again, "Try now"));
}

const showFreshness = keepFresh(() => state.updated);
const now = repeat(INTERVAL, refresh);

chooseTheme(() => {
  forget();
  draw();
});

byId("tag").addEventListener("change", ({ target }) => {
  const address = new URL(location.href);
  address.searchParams.set("tag", target.value);
  history.pushState(null, "", address);
  void now();
});
addEventListener("popstate", () => void now());

byId("calls-more").addEventListener("click", () => {
  state.callsShown += 1;
  void now();
});
