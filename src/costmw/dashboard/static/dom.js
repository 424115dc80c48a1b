/** Elements made of text: nothing here, or anywhere else on the page, parses markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element. Attributes that are null, undefined or false are left out; `on...` are
 * listeners. Children that are no nodes become text.
 * @param {string} name
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Node|string|null|undefined)} children
 * @returns {HTMLElement}
 */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same for a part of a drawing. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

/** A value from outside: its direction of writing does not reach what stands around it. */
export function value(text, attributes = {}) {
  return el("bdi", attributes, text);
}

/** Text for those who hear the page. */
export const hidden = (text) => el("span", { class: "hidden" }, text);

/** A part of a bar, `share` (0 to 1) of it wide. */
export function bar(share, className = "") {
  const fill = el("span", { class: `fill ${className}` });
  fill.style.width = portion(share);
  return fill;
}

/** A mark in a bar, `share` (0 to 1) from its start. */
export function tick(share, className, title = null) {
  const mark = el("span", { class: `tick ${className}`, title });
  mark.style.insetInlineStart = portion(share);
  return mark;
}

/** A square in one of the colours of the style sheet. */
export function swatch(color, className = "") {
  const square = el("span", { class: `swatch ${className}`, "aria-hidden": "true" });
  square.style.setProperty("--swatch", `var(--${color})`);
  return square;
}

/** The element with this id, which index.html has. */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no #${id}`);
  return element;
}

/**
 * Replace what is inside of an element; what had the focus keeps it if it is there again,
 * known by its `data-key`.
 */
export function replace(parent, ...children) {
  const key = parent.contains(document.activeElement) && document.activeElement.dataset.key;
  parent.replaceChildren(...children.filter(Boolean));
  if (key) parent.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** Fill a select, unless it holds that already: it may be open. */
export function offer(select, options, chosen) {
  const made = options.map(([text, label]) => el("option", { value: text }, label));
  const same = (a, b) => a.value === b.value && a.label === b.label;
  const shown = [...select.options];
  if (made.length !== shown.length || !made.every((one, n) => same(one, shown[n]))) {
    select.replaceChildren(...made);
  }
  if (select.value !== chosen) select.value = chosen;
}

/** Press the button of a row of buttons that has this value. */
export function press(group, chosen) {
  for (const button of group.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.value === chosen));
  }
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const portion = (share) => `${Math.min(Math.max(share, 0), 1) * 100}%`;
