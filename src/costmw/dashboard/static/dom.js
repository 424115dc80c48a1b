/** Elements made of text: nothing here, or anywhere else on the page, parses markup. */

/**
 * Make an element. Attributes that are null, undefined or false are left out; `on...` are
 * listeners. Children that are no nodes become text.
 * @param {string} name
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Node|string|null|undefined)} children
 * @returns {HTMLElement}
 */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A value from outside: its direction of writing does not reach what stands around it. */
export function value(text, attributes = {}) {
  return el("bdi", attributes, text);
}

/** A part of a bar, `share` (0 to 1) of it wide. */
export function bar(share, className = "") {
  const fill = el("span", { class: `fill ${className}` });
  fill.style.width = `${Math.min(Math.max(share, 0), 1) * 100}%`;
  return fill;
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
  if (key) parent.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
}
