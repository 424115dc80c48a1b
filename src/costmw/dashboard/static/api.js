/** Questions to the server. Addresses are relative: a proxy may have put a prefix before them. */

/** The server could not be reached, or answered with an error; `message` says what to do. */
export class Problem extends Error {
  constructor(title, detail, status = 0, field = null) {
    super(detail);
    this.title = title;
    this.status = status;
    this.field = field;
  }
}

/**
 * Everything for the first screen.
 * @param {URLSearchParams} question
 * @param {string|null} etag of the answer that is shown already
 * @param {AbortSignal} signal
 * @returns {Promise<{overview: object|null, etag: string|null}>} no overview when nothing is new
 */
export async function getOverview(question, etag, signal) {
  const headers = etag ? { "If-None-Match": etag } : {};
  const response = await ask(`api/v1/overview?${question}`, { signal, headers });
  if (response.status === 304) return { overview: null, etag };
  return { overview: await read(response), etag: response.headers.get("ETag") };
}

/** Who is asking, and how recording goes. */
export const getStatus = async (signal) => read(await ask("api/v1/status", { signal }));

/** Calls, the newest first, and where older ones go on. */
export const getCalls = async (question, signal) =>
  read(await ask(`api/v1/calls?${question}`, { signal }));

/** All that is known of one call. */
export const getCall = async (id, signal) =>
  read(await ask(`api/v1/calls/${encodeURIComponent(id)}`, { signal }));

/** Values of a dimension or tag that have `contains` in them. */
export const getValues = async (key, contains, signal) =>
  (await read(await ask(`api/v1/values?${new URLSearchParams({ key, contains })}`, { signal })))
    .values;

/** Budgets and the rules that they come from. */
export const getBudgets = async () => read(await ask("api/v1/budgets"));

/** Make a budget, or change it. */
export const putBudget = (name, rule) =>
  ask(`api/v1/budgets/${encodeURIComponent(name)}`, {
    method: "PUT",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(rule),
  });

/** Take a budget away. */
export const deleteBudget = (name) =>
  ask(`api/v1/budgets/${encodeURIComponent(name)}`, {
    method: "DELETE",
    headers: { "Content-Type": "application/json" },
  });

/** What first.js has asked for, once. */
async function early(path) {
  const name = path.split("?")[0];
  const answer = globalThis.firstAnswers?.[name];
  if (!answer) return null;
  delete globalThis.firstAnswers[name];
  const response = await answer;
  return response?.ok ? response : null;
}

async function ask(path, options = {}) {
  let response = await early(path);
  if (response) return response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server cannot be reached", "The page keeps trying.");
  }
  if (response.ok || response.status === 304) return response;
  throw await problemOf(response, options.method ?? "GET");
}

async function read(response) {
  if (!response.headers.get("Content-Type")?.startsWith("application/json")) {
    throw new Problem("The server answered with something else", "Sign in again, then reload.");
  }
  return response.json();
}

async function problemOf(response, method) {
  const { status } = response;
  const isProblem = response.headers.get("Content-Type")?.startsWith("application/problem+json");
  const told = isProblem ? await response.json() : {};
  if (status === 401 || (status === 403 && method === "GET")) {
    return new Problem("You are not let in any more", "Reload to sign in again.", status);
  }
  const titles = { 400: "This cannot be asked", 503: "The store cannot be read" };
  return new Problem(
    titles[status] ?? `The server answered ${status}`,
    told.detail ?? "The page keeps trying.",
    status,
    told.field ?? null,
  );
}
