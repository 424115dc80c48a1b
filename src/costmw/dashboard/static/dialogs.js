/** Dialogs: over the page, left by Escape, by a click beside them, or by their buttons. */

/**
 * Open a dialog; what had the focus gets it back.
 * @param {HTMLDialogElement} dialog
 * @param {() => void} [closed] called when it is left, however that happens
 */
export function open(dialog, closed = () => {}) {
  const { activeElement } = document;
  const key = activeElement?.dataset.key;
  dialog.onclose = () => {
    // Its row may have been drawn anew meanwhile.
    const again = key && document.querySelector(`[data-key="${CSS.escape(key)}"]`);
    (again || activeElement)?.focus({ preventScroll: true });
    closed();
  };
  dialog.onmousedown = (event) => {
    if (event.target === dialog && isOutside(dialog, event)) dialog.close();
  };
  for (const button of dialog.querySelectorAll("[data-close]")) {
    button.onclick = () => dialog.close();
  }
  if (!dialog.open) dialog.showModal();
}

function isOutside(dialog, { clientX: x, clientY: y }) {
  const box = dialog.getBoundingClientRect();
  return x < box.left || x > box.right || y < box.top || y > box.bottom;
}
