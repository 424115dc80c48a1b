// Runs before anything is drawn: a chosen theme must not flash, and the first answers are on
// their way while the modules of the page still load.
try {
  const theme = localStorage.getItem("costmw-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is blocked: the system's theme it is.
}

globalThis.firstAnswers = Object.fromEntries(
  [`api/v1/overview${location.search}`, "api/v1/status"].map((path) => [
    path.split("?")[0],
    // A failure is met, and told, when the page asks for itself.
    fetch(path, { credentials: "same-origin" }).catch(() => null),
  ]),
);
