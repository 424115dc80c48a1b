"""The schema of the Postgres store, as migrations that only ever add.

A newer costmw may have added more: its tables are left alone, and columns are
always named, so that an older version goes on working beside it.
"""

from __future__ import annotations

from psycopg import Connection
from psycopg.sql import SQL, Identifier

from costmw.errors import StoreError

LEDGER = """
CREATE TABLE settings (
    key text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

INSERT INTO settings (key, value) VALUES ('ids_epoch', '0');  -- see costmw.store.postgres_epoch

-- Whoever writes updates this one row first: writers take turns, so that no two of them wait
-- for each other, and what is committed later has the higher position.
CREATE TABLE turn (
    position bigint NOT NULL
);

INSERT INTO turn (position) VALUES (0);

-- What calls are grouped by: keys such as 'tag:tenant', and how many values each has.
CREATE TABLE facet_keys (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE,      -- 'tag:<key>', 'kind', 'api_key_id'
    value_count bigint NOT NULL DEFAULT 0
);

CREATE TABLE facets (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,   -- 0 is left for everything
    key_id integer NOT NULL REFERENCES facet_keys (id),
    digest bytea NOT NULL,                     -- of the value, which may be too long to index
    value text COLLATE "C" NOT NULL,
    UNIQUE (key_id, digest)
);

CREATE INDEX facets_by_value ON facets USING hash (value);

CREATE TABLE tag_sets (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE,              -- of the tags as JSON, keys sorted
    tags text NOT NULL                         -- JSON object
);

CREATE TABLE tags (
    tag_set_id bigint NOT NULL REFERENCES tag_sets (id),
    key_id integer NOT NULL REFERENCES facet_keys (id),
    facet_id integer NOT NULL REFERENCES facets (id),
    PRIMARY KEY (tag_set_id, key_id)
);

CREATE INDEX tags_by_facet ON tags (facet_id, tag_set_id);

-- What was called, and by which key: said once for all calls alike.
CREATE TABLE call_kinds (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE,              -- of all that follows
    operation text NOT NULL,
    api text,
    provider text COLLATE "C",
    request_model text COLLATE "C",
    response_model text COLLATE "C",
    api_key_id text COLLATE "C",
    price_context text                         -- JSON object: what of the response chose the price
);

CREATE TABLE prices (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE,              -- of source, ref and units
    source text NOT NULL,                      -- provider, list, override, none
    ref text,
    units text NOT NULL                        -- JSON object: unit -> USD as a decimal string
);

CREATE SEQUENCE usage_events_seq AS bigint;

-- One partition a month of the accounting time zone; see costmw.store.postgres_partitions.
-- No foreign keys: checking them would cost more than the insert.
CREATE TABLE usage_events (
    seq bigint NOT NULL DEFAULT nextval('usage_events_seq'),
    created_at timestamptz NOT NULL,
    id uuid NOT NULL,
    request_id uuid,
    call_kind_id bigint NOT NULL,
    price_id bigint NOT NULL,
    tag_set_id bigint NOT NULL,
    cost_pico_usd bigint,                      -- NULL when unknown
    input_tokens bigint,                       -- including cache
    output_tokens bigint,                      -- including reasoning
    cache_read_input_tokens bigint NOT NULL,
    cache_write_input_tokens bigint NOT NULL,
    reasoning_output_tokens bigint NOT NULL,
    latency_ms bigint,
    time_to_first_chunk_ms bigint,
    first_in_request smallint NOT NULL,
    status text NOT NULL,                      -- ok, estimated, incomplete, unmetered
    reason text,
    usage_detail text,                         -- JSON object: unit -> count
    response_id text,
    trace_id text,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);

CREATE INDEX usage_events_by_time ON usage_events (created_at);

CREATE INDEX usage_events_by_tags ON usage_events (tag_set_id, created_at);

CREATE INDEX usage_events_by_seq ON usage_events (seq);

CREATE TABLE usage_events_default PARTITION OF usage_events DEFAULT;

-- Ids that do not say when: the primary key cannot tell that such a one is there already,
-- with another moment. Results that come later are the most of them.
CREATE TABLE undated_ids (
    id uuid PRIMARY KEY,
    created_at timestamptz NOT NULL
);

CREATE TABLE amendments (
    seq bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    id uuid PRIMARY KEY,
    event_id uuid NOT NULL,
    amended_at timestamptz NOT NULL,
    reason text NOT NULL,
    status text,                               -- the new one, or NULL for no change
    price_id bigint REFERENCES prices (id),
    cost_pico_usd bigint NOT NULL,             -- from here on: differences to add
    estimated_cost_pico_usd bigint NOT NULL,
    unpriced bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cache_read_input_tokens bigint NOT NULL,
    cache_write_input_tokens bigint NOT NULL,
    reasoning_output_tokens bigint NOT NULL
);

CREATE INDEX amendments_by_event ON amendments (event_id, seq);

-- Who asked for a result that comes later; kept for 90 days.
CREATE TABLE submissions (
    provider text COLLATE "C" NOT NULL,        -- '' when unknown
    result_id text COLLATE "C" NOT NULL,       -- the provider's id of the response, batch or file
    created_at timestamptz NOT NULL,
    tag_set_id bigint NOT NULL REFERENCES tag_sets (id),
    request_id uuid,
    first_in_request smallint NOT NULL,
    api_key_id text,
    PRIMARY KEY (provider, result_id)
);

CREATE TABLE call_outcomes (
    hour integer NOT NULL,                     -- hours since 1970, UTC
    kind text COLLATE "C" NOT NULL,            -- error, retry, refused, capture_fault
    provider text COLLATE "C" NOT NULL,        -- '' when unknown
    model text COLLATE "C" NOT NULL,
    tag_set_id bigint NOT NULL REFERENCES tag_sets (id),
    count bigint NOT NULL,
    PRIMARY KEY (hour, kind, provider, model, tag_set_id)
);

-- Outcomes are counted and have no row: their ids are kept for 30 days, so that one that is
-- sent again is not counted again.
CREATE TABLE counted_outcomes (
    id uuid PRIMARY KEY,
    counted_at timestamptz NOT NULL DEFAULT now()
);

-- The kinds of calls that rollups tell apart; `facet_id` is the facet of key 'kind'.
CREATE TABLE rollup_kinds (
    facet_id integer PRIMARY KEY REFERENCES facets (id),
    provider text COLLATE "C",
    model text COLLATE "C",
    operation text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    cost_source text COLLATE "C" NOT NULL
);

-- Sums of one facet (beside 0, everything), or of a pair; see costmw.store.rollups. They
-- change in the transaction of the events that they sum.
CREATE TABLE rollups (
    every integer NOT NULL,                    -- minutes: 60 an hour, 1440 a day
    bucket bigint NOT NULL,                    -- when it begins: minutes since 1970, UTC
    facet_id integer NOT NULL,
    other_facet_id integer NOT NULL,
    calls bigint NOT NULL,
    requests bigint NOT NULL,
    unpriced bigint NOT NULL,
    flagged bigint NOT NULL,
    incomplete bigint NOT NULL,
    timed bigint NOT NULL,
    cost_pico_usd numeric NOT NULL,
    estimated_cost_pico_usd numeric NOT NULL,
    cost_in_requests_pico_usd numeric NOT NULL,
    input_tokens numeric NOT NULL,
    output_tokens numeric NOT NULL,
    cache_read_input_tokens numeric NOT NULL,
    cache_write_input_tokens numeric NOT NULL,
    reasoning_output_tokens numeric NOT NULL,
    latency_ms numeric NOT NULL,
    PRIMARY KEY (every, bucket, facet_id, other_facet_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE rollup_histograms (
    bucket bigint NOT NULL,                    -- a day
    facet_id integer NOT NULL,
    bin integer NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (bucket, facet_id, bin)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- Records that cannot be stored, and why; `record` is JSON.
CREATE TABLE dead_letters (
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    record text NOT NULL,
    reason text NOT NULL,
    failed_at timestamptz NOT NULL
);

-- The table that how-to articles have people build, for BI tools.
CREATE VIEW llm_usage_events AS
SELECT
    e.id,
    coalesce(k.response_model, k.request_model) AS model,
    k.provider,
    CASE
        WHEN coalesce(a.input_tokens, 0) = 0 THEN e.input_tokens
        ELSE coalesce(e.input_tokens, 0) + a.input_tokens
    END AS input_tokens,
    CASE
        WHEN coalesce(a.output_tokens, 0) = 0 THEN e.output_tokens
        ELSE coalesce(e.output_tokens, 0) + a.output_tokens
    END AS output_tokens,
    c.cost_pico_usd::numeric(38, 0) * 0.000000000001::numeric(38, 12) AS cost_usd,
    e.latency_ms,
    s.tags::jsonb AS tags,
    k.api_key_id,
    e.created_at,
    c.cost_pico_usd,
    coalesce(a.status, e.status) AS status,
    coalesce(a.reason, e.reason) AS reason,
    p.source AS cost_source,
    k.operation,
    e.cache_read_input_tokens + coalesce(a.cache_read_input_tokens, 0) AS cache_read_input_tokens,
    e.cache_write_input_tokens + coalesce(a.cache_write_input_tokens, 0)
        AS cache_write_input_tokens,
    e.reasoning_output_tokens + coalesce(a.reasoning_output_tokens, 0) AS reasoning_output_tokens,
    e.request_id,
    e.first_in_request = 1 AS first_in_request
FROM usage_events e
JOIN call_kinds k ON k.id = e.call_kind_id
JOIN tag_sets s ON s.id = e.tag_set_id
LEFT JOIN LATERAL (
    SELECT
        sum(d.cost_pico_usd + d.estimated_cost_pico_usd) AS cost,
        sum(d.unpriced) AS unpriced,
        sum(d.input_tokens) AS input_tokens,
        sum(d.output_tokens) AS output_tokens,
        sum(d.cache_read_input_tokens) AS cache_read_input_tokens,
        sum(d.cache_write_input_tokens) AS cache_write_input_tokens,
        sum(d.reasoning_output_tokens) AS reasoning_output_tokens,
        (array_agg(d.status ORDER BY d.seq DESC) FILTER (WHERE d.status IS NOT NULL))[1] AS status,
        (array_agg(d.reason ORDER BY d.seq DESC))[1] AS reason,
        (array_agg(d.price_id ORDER BY d.seq DESC) FILTER (WHERE d.price_id IS NOT NULL))[1]
            AS price_id
    FROM amendments d WHERE d.event_id = e.id
) a ON true
JOIN prices p ON p.id = coalesce(a.price_id, e.price_id)
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN (CASE WHEN e.cost_pico_usd IS NULL THEN 1 ELSE 0 END) + coalesce(a.unpriced, 0) > 0
        THEN NULL
        ELSE coalesce(e.cost_pico_usd, 0) + coalesce(a.cost, 0)
    END AS cost_pico_usd
) c;
"""

CAPS = """
-- Blocking budgets: which calls count, and from when on; see costmw.caps.rules.
CREATE TABLE budgets (
    name text COLLATE "C" PRIMARY KEY,
    source text NOT NULL,          -- code, page
    definition text NOT NULL,      -- JSON object
    since bigint NOT NULL          -- microseconds since 1970, UTC
);

-- What is used up of each limit; amounts in pico-USD, as text since sums have no end.
CREATE TABLE balances (
    budget text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,   -- JSON array: the values of the tags that it is split by
    period_start bigint NOT NULL,      -- microseconds since 1970, UTC
    spent text NOT NULL,               -- what the ledger says
    assumed text NOT NULL,             -- charged for calls whose cost the ledger does not know
    held text NOT NULL,                -- what calls in flight may cost
    PRIMARY KEY (budget, scope, period_start)
) WITH (fillfactor = 50);

-- What calls in flight may cost at most.
CREATE TABLE holds (
    id text COLLATE "C" PRIMARY KEY,   -- of the row that is to settle it
    pico_usd bigint NOT NULL,
    unpriced smallint NOT NULL,        -- 1 when the model has no price
    at bigint NOT NULL,                -- when the call began: microseconds since 1970, UTC
    tags text NOT NULL,                -- JSON object
    expires_at bigint NOT NULL,        -- microseconds since 1970, UTC
    call text NOT NULL                 -- JSON object: the row that is made when nobody settles it
);

CREATE TABLE assumed_charges (
    id text COLLATE "C" PRIMARY KEY,   -- of the row whose cost is not known
    pico_usd bigint NOT NULL,
    unpriced smallint NOT NULL,
    at bigint NOT NULL,
    tags text NOT NULL,
    expired smallint NOT NULL          -- 1 when it was made since its hold had ended
);
"""

ALERTS = """
-- What was worth an alert: each once, whoever finds it, in the order in which it is told.
CREATE TABLE alerts (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,                   -- UUID, in hexadecimal digits
    digest text NOT NULL UNIQUE,               -- of kind, budget, scope, period_start, threshold
    kind text NOT NULL,                        -- budget.threshold, model.new, ...
    budget text NOT NULL,                      -- '' for none
    scope text NOT NULL,                       -- JSON object: tags of the split, or the model
    period_start bigint NOT NULL,              -- microseconds since 1970, UTC; 0: all of time
    threshold text NOT NULL,                   -- '' for none
    details text NOT NULL,                     -- JSON object: what is told of it
    forget_at bigint,                          -- microseconds; nobody finds it again then
    quiet smallint NOT NULL,                   -- 1: known, and not told
    raised_at bigint NOT NULL                  -- microseconds
);

-- How far each channel has them.
CREATE TABLE alert_channels (
    name text COLLATE "C" PRIMARY KEY,
    address text NOT NULL,                     -- a digest of where it leads
    delivered_seq bigint NOT NULL,
    attempts bigint NOT NULL,                  -- of the next one, which failed
    retry_at bigint                            -- microseconds; NULL: it is closed
);
"""

MIGRATIONS = {"ledger": LEDGER, "caps": CAPS, "alerts": ALERTS}
"""Name to statements, oldest first."""

_APPLIED = "costmw_migrations"


def migrate(connection: Connection, schema: str, shown: str) -> None:
    """Make the schema and its tables, or what is missing of them.

    Raises:
        StoreError: when the schema is of something else; `shown` is the store's URL.
    """
    if is_migrated(connection, schema):
        return
    with connection.transaction():
        # Of all hosts that start at one moment, one makes the tables.
        connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('costmw ' || $1, 0))", (schema,)
        )
        applied = applied_steps(connection, schema)
        if not applied:
            _refuse_foreign(connection, schema, shown)
            # Not IF NOT EXISTS: that asks for a right that whoever owns the schema may lack.
            if not connection.execute(
                "SELECT 1 FROM pg_namespace WHERE nspname = $1", (schema,)
            ).fetchone():
                connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
            connection.execute(
                f"CREATE TABLE {_APPLIED} ("
                "name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
            )
        for name, statements in MIGRATIONS.items():
            if name not in applied:
                connection.execute(statements)
                connection.execute(f"INSERT INTO {_APPLIED} (name) VALUES ($1)", (name,))  # noqa: S608


def is_migrated(connection: Connection, schema: str) -> bool:
    """Whether a schema has had all migrations of this version."""
    return applied_steps(connection, schema) >= MIGRATIONS.keys()


def applied_steps(connection: Connection, schema: str) -> set[str]:
    """The migrations that a schema has had; none when it is not there."""
    # Not by to_regclass: it may go on to say no when another host has just made the table.
    found = connection.execute(
        "SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = $2", (schema, _APPLIED)
    ).fetchone()
    if found is None:
        return set()
    return {name for (name,) in connection.execute(f"SELECT name FROM {_APPLIED}").fetchall()}  # noqa: S608


def _refuse_foreign(connection: Connection, schema: str, shown: str) -> None:
    found = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = "
        "(SELECT oid FROM pg_namespace WHERE nspname = $1) "
        "AND relkind IN ('r', 'p', 'v', 'm') LIMIT 1",
        (schema,),
    ).fetchone()
    if found:
        raise StoreError(
            f"the schema {schema} of {shown} is of something else (it has a table {found[0]}); "
            "give costmw one of its own with '?schema=costmw'"
        )


def refuse_other_encodings(connection: Connection, shown: str) -> None:
    """Raise a `StoreError` when the database cannot hold every text."""
    row = connection.execute("SHOW server_encoding").fetchone()
    if row != ("UTF8",):
        raise StoreError(
            f"the database of {shown} is encoded in {row and row[0]}, which cannot hold every tag; "
            "make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )
