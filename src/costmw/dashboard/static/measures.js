/** What can be looked at: how it is read from an answer, written, summed and drawn. */

import { short, whole } from "./format.js";
import { compareUsd, exactUsd, pixels, shareOf, sum, usd } from "./money.js";
import { delta, numberDelta } from "./tables.js";

const MONEY = {
  isMoney: true,
  write: usd,
  exact: exactUsd,
  pixels,
  compare: compareUsd,
  add: sum,
  share: shareOf,
  delta,
};

const COUNT = {
  isMoney: false,
  write: short,
  exact: whole,
  pixels: (count) => count,
  compare: (a, b) => b - a,
  add: (...counts) => counts.reduce((total, count) => total + count, 0),
  share: (part, all) => (all ? part / all : 0),
  delta: numberDelta,
};

/**
 * By metric. `at` reads one entry of a line of a series, `of` some sums; `adds` says whether
 * the values of parts make up the whole.
 */
export const MEASURES = {
  cost: {
    ...MONEY,
    adds: true,
    at: (line, n) => sum(line.cost_usd[n], line.estimated_cost_usd[n]),
    of: (sums) => sums.total_usd,
  },
  calls: { ...COUNT, adds: true, at: (line, n) => line.calls[n], of: (sums) => sums.calls },
  tokens: {
    ...COUNT,
    adds: true,
    at: (line, n) => line.tokens[n],
    of: (sums) => sums.input_tokens + sums.output_tokens,
  },
  cost_per_call: {
    ...MONEY,
    adds: false,
    at: (line, n) => line.cost_per_call_usd[n],
    of: (sums) => sums.cost_per_call_usd,
  },
  cost_per_request: {
    ...MONEY,
    adds: false,
    at: (line, n) => line.cost_per_request_usd[n],
    of: (sums) => sums.cost_per_request_usd,
  },
};
