/** Questions to the server. Addresses are relative: a proxy may have put a prefix before them. */

/** The server could not be reached, or answered with an error; `message` says what to do. */
export class Problem extends Error {
  constructor(title, detail, status = 0) {
    super(detail);
    this.title = title;
    this.status = status;
  }
}

/**
 * Everything for the first screen.
 * @param {string} tag the key that the tag view groups by
 * @param {string|null} etag of the answer that is shown already
 * @param {AbortSignal} signal
 * @returns {Promise<{overview: object|null, etag: string|null}>} no overview when nothing is new
 */
export async function getOverview(tag, etag, signal) {
  const path = `api/v1/overview?${new URLSearchParams({ tag })}`;
  const response = await ask(path, signal, etag ? { "If-None-Match": etag } : {});
  if (response.status === 304) return { overview: null, etag };
  return { overview: await read(response), etag: response.headers.get("ETag") };
}

/** Who is asking, and how recording goes. */
export async function getStatus(signal) {
  return read(await ask("api/v1/status", signal));
}

/** The newest calls. */
export async function getCalls(limit, signal) {
  return read(await ask(`api/v1/calls?limit=${limit}`, signal));
}

async function ask(path, signal, headers = {}) {
  let response;
  try {
    response = await fetch(path, { signal, headers, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server cannot be reached", "The page keeps trying.");
  }
  if (response.ok || response.status === 304) return response;
  throw await problemOf(response);
}

async function read(response) {
  if (!response.headers.get("Content-Type")?.startsWith("application/json")) {
    throw new Problem("The server answered with something else", "Sign in again, then reload.");
  }
  return response.json();
}

async function problemOf(response) {
  const isProblem = response.headers.get("Content-Type")?.startsWith("application/problem+json");
  const told = isProblem ? await response.json() : {};
  if (response.status === 401 || response.status === 403) {
    return new Problem("You are not let in any more", "Reload to sign in again.", response.status);
  }
  return new Problem(
    response.status === 503 ? "The store cannot be read" : `The server answered ${response.status}`,
    told.detail ?? "The page keeps trying.",
    response.status,
  );
}
