/** The top of the page: who is confined to what, how fresh it is, which theme. */

import { byId, el, replace, value } from "../dom.js";
import { ago, clock, date } from "../format.js";

const DARK = matchMedia("(prefers-color-scheme: dark)");

/** Show what the reader is confined to. */
export function showScope(scope) {
  const tags = Object.entries(scope);
  byId("scope").hidden = tags.length === 0;
  replace(
    byId("scope"),
    ...tags.map(([key, text]) => el("li", {}, value(key), ": ", value(text, { class: "name" }))),
  );
}

/** Say how long ago the numbers came; again every second. */
export function keepFresh(lastSuccess) {
  const show = () => {
    const at = lastSuccess();
    byId("freshness").textContent = at ? `Updated ${ago(Date.now() - at)}` : "";
    // On paper nothing goes on.
    byId("freshness").dataset.at = at ? `As of ${date(at)}, ${clock(at)}` : "";
  };
  setInterval(show, 1000);
  return show;
}

/** Let the reader choose the theme, and remember it; paper is light. `changed` draws again. */
export function chooseTheme(changed) {
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : DARK.matches);
  const show = () => {
    byId("theme").setAttribute("aria-pressed", String(isDark()));
    changed();
  };

  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("costmw-theme", root.dataset.theme);
    } catch {
      // Storage is blocked: the choice holds until the page is left.
    }
    show();
  });
  DARK.addEventListener("change", show);
  let chosen;
  addEventListener("beforeprint", () => {
    chosen = root.dataset.theme;
    root.dataset.theme = "light";
    changed();
  });
  addEventListener("afterprint", () => {
    if (chosen) root.dataset.theme = chosen;
    else delete root.dataset.theme;
    changed();
  });
  show();
}
