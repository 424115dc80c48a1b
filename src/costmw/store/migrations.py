"""The schema of the SQLite store, as migrations that only ever add.

A newer costmw may have added more: its tables are left alone, and columns are
always named, so that an older version goes on working beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

SCHEMA = """
CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What calls are grouped by: keys such as 'tag:tenant', and how many values each has.
CREATE TABLE facet_keys (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,      -- 'tag:<key>', 'kind', 'api_key_id'
    value_count INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE facets (
    id INTEGER PRIMARY KEY,        -- 0 is left for everything
    key_id INTEGER NOT NULL REFERENCES facet_keys (id),
    value TEXT NOT NULL,
    UNIQUE (key_id, value)
) STRICT;

CREATE TABLE tag_sets (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,   -- of the tags as JSON, keys sorted
    tags TEXT NOT NULL             -- JSON object
) STRICT;

CREATE TABLE tags (
    tag_set_id INTEGER NOT NULL REFERENCES tag_sets (id),
    key_id INTEGER NOT NULL REFERENCES facet_keys (id),
    facet_id INTEGER NOT NULL REFERENCES facets (id),
    PRIMARY KEY (tag_set_id, key_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX tags_by_facet ON tags (facet_id, tag_set_id);

-- What was called, and by which key: said once for all calls alike.
CREATE TABLE call_kinds (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,   -- of all that follows
    operation TEXT NOT NULL,
    api TEXT,
    provider TEXT,
    request_model TEXT,
    response_model TEXT,
    api_key_id TEXT,
    price_context TEXT             -- JSON object: what of the response chose the price
) STRICT;

CREATE TABLE prices (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,   -- of source, ref and units
    source TEXT NOT NULL,          -- provider, list, override, none
    ref TEXT,
    units TEXT NOT NULL            -- JSON object: unit -> USD as a decimal string
) STRICT;

CREATE TABLE usage_events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,       -- UUID
    created_at INTEGER NOT NULL,   -- microseconds since 1970, UTC
    request_id BLOB,
    first_in_request INTEGER NOT NULL,
    call_kind_id INTEGER NOT NULL REFERENCES call_kinds (id),
    input_tokens INTEGER,          -- including cache
    output_tokens INTEGER,         -- including reasoning
    cache_read_input_tokens INTEGER NOT NULL,
    cache_write_input_tokens INTEGER NOT NULL,
    reasoning_output_tokens INTEGER NOT NULL,
    usage_detail TEXT,             -- JSON object: unit -> count
    cost_pico_usd INTEGER,         -- NULL when unknown
    price_id INTEGER NOT NULL REFERENCES prices (id),
    status TEXT NOT NULL,          -- ok, estimated, incomplete, unmetered
    reason TEXT,
    latency_ms INTEGER,
    time_to_first_chunk_ms INTEGER,
    tag_set_id INTEGER NOT NULL REFERENCES tag_sets (id),
    response_id TEXT,
    trace_id TEXT
) STRICT;

CREATE INDEX usage_events_by_time ON usage_events (created_at);

CREATE INDEX usage_events_by_tags ON usage_events (tag_set_id, created_at);

CREATE TABLE amendments (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    event_id BLOB NOT NULL,
    amended_at INTEGER NOT NULL,   -- microseconds since 1970, UTC
    reason TEXT NOT NULL,
    status TEXT,                   -- the new one, or NULL for no change
    price_id INTEGER REFERENCES prices (id),
    cost_pico_usd INTEGER NOT NULL,            -- from here on: differences to add
    estimated_cost_pico_usd INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cache_read_input_tokens INTEGER NOT NULL,
    cache_write_input_tokens INTEGER NOT NULL,
    reasoning_output_tokens INTEGER NOT NULL
) STRICT;

CREATE INDEX amendments_by_event ON amendments (event_id);

-- Who asked for a result that comes later; kept for 90 days.
CREATE TABLE submissions (
    provider TEXT NOT NULL,        -- '' when unknown
    result_id TEXT NOT NULL,       -- the provider's id of the response, batch or file
    created_at INTEGER NOT NULL,   -- microseconds since 1970, UTC
    tag_set_id INTEGER NOT NULL REFERENCES tag_sets (id),
    request_id BLOB,
    first_in_request INTEGER NOT NULL,
    api_key_id TEXT,
    PRIMARY KEY (provider, result_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE call_outcomes (
    hour INTEGER NOT NULL,         -- hours since 1970, UTC
    kind TEXT NOT NULL,            -- error, retry, refused, capture_fault
    provider TEXT NOT NULL,        -- '' when unknown
    model TEXT NOT NULL,
    tag_set_id INTEGER NOT NULL REFERENCES tag_sets (id),
    count INTEGER NOT NULL,
    PRIMARY KEY (hour, kind, provider, model, tag_set_id)
) STRICT, WITHOUT ROWID;

-- The kinds of calls that rollups tell apart; `facet_id` is the facet of key 'kind'.
CREATE TABLE rollup_kinds (
    facet_id INTEGER PRIMARY KEY REFERENCES facets (id),
    provider TEXT,
    model TEXT,
    operation TEXT NOT NULL,
    status TEXT NOT NULL,
    cost_source TEXT NOT NULL
) STRICT;

-- Sums of one facet (beside 0, everything), or of a pair; see costmw.store.rollups.
-- A column that ends in _m has the whole millions of the one before it.
CREATE TABLE rollups (
    every INTEGER NOT NULL,        -- minutes: 60 an hour, 1440 a day
    bucket INTEGER NOT NULL,       -- when it begins: minutes since 1970, UTC
    facet_id INTEGER NOT NULL,
    other_facet_id INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    cost_pico_usd INTEGER NOT NULL,
    cost_pico_usd_m INTEGER NOT NULL,
    estimated_cost_pico_usd INTEGER NOT NULL,
    estimated_cost_pico_usd_m INTEGER NOT NULL,
    cost_in_requests_pico_usd INTEGER NOT NULL,
    cost_in_requests_pico_usd_m INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    flagged INTEGER NOT NULL,
    incomplete INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    input_tokens_m INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    output_tokens_m INTEGER NOT NULL,
    cache_read_input_tokens INTEGER NOT NULL,
    cache_read_input_tokens_m INTEGER NOT NULL,
    cache_write_input_tokens INTEGER NOT NULL,
    cache_write_input_tokens_m INTEGER NOT NULL,
    reasoning_output_tokens INTEGER NOT NULL,
    reasoning_output_tokens_m INTEGER NOT NULL,
    latency_ms INTEGER NOT NULL,
    latency_ms_m INTEGER NOT NULL,
    timed INTEGER NOT NULL,
    PRIMARY KEY (every, bucket, facet_id, other_facet_id)
) STRICT, WITHOUT ROWID;

-- The last rows that the rollups have; what comes after is added when somebody asks.
CREATE TABLE rollup_watermarks (
    source TEXT PRIMARY KEY,       -- usage_events, amendments
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE rollup_histograms (
    bucket INTEGER NOT NULL,       -- a day
    facet_id INTEGER NOT NULL,
    bin INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (bucket, facet_id, bin)
) STRICT, WITHOUT ROWID;

-- The table that how-to articles have people build, for BI tools.
CREATE VIEW llm_usage_events AS
SELECT
    id,
    model,
    provider,
    input_tokens,
    output_tokens,
    iif(unpriced > 0, NULL, printf(
        '%s%d.%012d', iif(cost < 0, '-', ''), abs(cost) / 1000000000000, abs(cost) % 1000000000000
    )) AS cost_usd,
    latency_ms,
    tags,
    api_key_id,
    created_at,
    iif(unpriced > 0, NULL, cost) AS cost_pico_usd, -- to compare and sum: SQLite has no decimals
    status,
    reason,
    cost_source,
    operation,
    cache_read_input_tokens,
    cache_write_input_tokens,
    reasoning_output_tokens,
    request_id,
    first_in_request
FROM (
    SELECT
        lower(hex(e.id)) AS id,
        coalesce(k.response_model, k.request_model) AS model,
        k.provider,
        iif(
            coalesce(sum(a.input_tokens), 0) = 0, e.input_tokens,
            coalesce(e.input_tokens, 0) + sum(a.input_tokens)
        ) AS input_tokens,
        iif(
            coalesce(sum(a.output_tokens), 0) = 0, e.output_tokens,
            coalesce(e.output_tokens, 0) + sum(a.output_tokens)
        ) AS output_tokens,
        (e.cost_pico_usd IS NULL) + coalesce(sum(a.unpriced), 0) AS unpriced,
        coalesce(e.cost_pico_usd, 0)
            + coalesce(sum(a.cost_pico_usd + a.estimated_cost_pico_usd), 0) AS cost,
        e.latency_ms,
        s.tags,
        k.api_key_id,
        strftime('%Y-%m-%dT%H:%M:%S', e.created_at / 1000000, 'unixepoch')
            || printf('.%06dZ', e.created_at % 1000000) AS created_at,
        coalesce(
            (
                SELECT c.status FROM amendments c
                WHERE c.event_id = e.id AND c.status IS NOT NULL ORDER BY c.seq DESC LIMIT 1
            ),
            e.status
        ) AS status,
        coalesce(
            (
                SELECT c.reason FROM amendments c
                WHERE c.event_id = e.id ORDER BY c.seq DESC LIMIT 1
            ),
            e.reason
        ) AS reason,
        (
            SELECT p.source FROM prices p
            WHERE p.id = coalesce(
                (
                    SELECT c.price_id FROM amendments c
                    WHERE c.event_id = e.id AND c.price_id IS NOT NULL ORDER BY c.seq DESC LIMIT 1
                ),
                e.price_id
            )
        ) AS cost_source,
        k.operation,
        e.cache_read_input_tokens + coalesce(sum(a.cache_read_input_tokens), 0)
            AS cache_read_input_tokens,
        e.cache_write_input_tokens + coalesce(sum(a.cache_write_input_tokens), 0)
            AS cache_write_input_tokens,
        e.reasoning_output_tokens + coalesce(sum(a.reasoning_output_tokens), 0)
            AS reasoning_output_tokens,
        iif(e.request_id IS NULL, NULL, lower(hex(e.request_id))) AS request_id,
        e.first_in_request
    FROM usage_events e
    JOIN call_kinds k ON k.id = e.call_kind_id
    JOIN tag_sets s ON s.id = e.tag_set_id
    LEFT JOIN amendments a ON a.event_id = e.id
    GROUP BY e.seq
);
"""

# For dropping a tag set: both tables are asked whether they have it.
TAG_SETS_BY_INDEX = """
CREATE INDEX submissions_by_tags ON submissions (tag_set_id);

CREATE INDEX call_outcomes_by_tags ON call_outcomes (tag_set_id);
"""

CAPS = """
-- Blocking budgets: which calls count, and from when on; see costmw.caps.rules.
CREATE TABLE budgets (
    name TEXT PRIMARY KEY,
    source TEXT NOT NULL,          -- code, page
    definition TEXT NOT NULL,      -- JSON object
    since INTEGER NOT NULL         -- microseconds since 1970, UTC
) STRICT, WITHOUT ROWID;

-- What is used up of each limit; amounts in pico-USD, as text since sums have no end.
CREATE TABLE balances (
    budget TEXT NOT NULL,
    scope TEXT NOT NULL,           -- JSON array: the values of the tags that it is split by
    period_start INTEGER NOT NULL, -- microseconds since 1970, UTC
    spent TEXT NOT NULL,           -- what the ledger says
    assumed TEXT NOT NULL,         -- charged for calls whose cost the ledger does not know
    held TEXT NOT NULL,            -- what calls in flight may cost
    PRIMARY KEY (budget, scope, period_start)
) STRICT, WITHOUT ROWID;

-- What calls in flight may cost at most.
CREATE TABLE holds (
    id TEXT PRIMARY KEY,           -- of the row that is to settle it
    pico_usd INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,     -- 1 when the model has no price
    at INTEGER NOT NULL,           -- when the call began: microseconds since 1970, UTC
    tags TEXT NOT NULL,            -- JSON object
    expires_at INTEGER NOT NULL,   -- microseconds since 1970, UTC
    call TEXT NOT NULL             -- JSON object: the row that is made when nobody settles it
) STRICT, WITHOUT ROWID;

CREATE TABLE assumed_charges (
    id TEXT PRIMARY KEY,           -- of the row whose cost is not known
    pico_usd INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    at INTEGER NOT NULL,
    tags TEXT NOT NULL,
    expired INTEGER NOT NULL       -- 1 when it was made since its hold had ended
) STRICT, WITHOUT ROWID;
"""

ALERTS = """
-- What was worth an alert: each once, whoever finds it, in the order in which it is told.
CREATE TABLE alerts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,       -- UUID, in hexadecimal digits
    digest TEXT NOT NULL UNIQUE,   -- of kind, budget, scope, period_start and threshold
    kind TEXT NOT NULL,            -- budget.threshold, model.new, ...
    budget TEXT NOT NULL,          -- '' for none
    scope TEXT NOT NULL,           -- JSON object: tags of the budget's split, or the model
    period_start INTEGER NOT NULL, -- microseconds since 1970, UTC; 0 for all of time
    threshold TEXT NOT NULL,       -- '' for none
    details TEXT NOT NULL,         -- JSON object: what is told of it
    forget_at INTEGER,             -- microseconds; nobody finds it again from then on
    quiet INTEGER NOT NULL,        -- 1: known, and not told
    raised_at INTEGER NOT NULL     -- microseconds
) STRICT;

-- How far each channel has them.
CREATE TABLE alert_channels (
    name TEXT PRIMARY KEY,
    address TEXT NOT NULL,         -- a digest of where it leads
    delivered_seq INTEGER NOT NULL,
    attempts INTEGER NOT NULL,     -- of the next one, which failed
    retry_at INTEGER               -- microseconds; NULL: it is closed
) STRICT, WITHOUT ROWID;
"""


def migrations() -> Migrations:
    """All migrations, oldest first."""
    from sqlite_utils.migrations import Migrations

    steps = Migrations("costmw")

    @steps(name="ledger")
    def ledger(db: Database) -> None:
        _run(db, SCHEMA)

    @steps(name="tag_sets_by_index")
    def tag_sets_by_index(db: Database) -> None:
        _run(db, TAG_SETS_BY_INDEX)

    @steps(name="caps")
    def caps(db: Database) -> None:
        _run(db, CAPS)

    @steps(name="alerts")
    def alerts(db: Database) -> None:
        _run(db, ALERTS)

    return steps


def _run(db: Database, script: str) -> None:
    # One statement at a time: executescript() would commit the migration's transaction.
    for statement in script.split(";\n"):
        if statement.strip():
            db.execute(statement)
