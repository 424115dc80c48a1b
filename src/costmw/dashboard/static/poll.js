/** Work that repeats, and rests while nobody looks. */

/**
 * Do `work` now and again `interval` milliseconds after each end, paused in a hidden tab.
 * @param {number} interval
 * @param {() => Promise<void>} work must not fail
 * @returns {() => Promise<void>} does it at once, and starts the wait anew
 */
export function repeat(interval, work) {
  let timer = 0;
  let last = 0;

  async function now() {
    clearTimeout(timer);
    last = Date.now();
    await work();
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(now, interval);
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(now, Math.max(0, last + interval - Date.now()));
  });
  void now();
  return now;
}
