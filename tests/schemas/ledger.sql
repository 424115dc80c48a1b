BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'costmw','ledger','2026-11-23 20:58:47.358327+00:00');
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
INSERT INTO "amendments" VALUES(1,X'01A20A3444C57910805632C9A29C1329',X'01A20A3444C57612939C1952789FCD2C',1773921600000000,'repriced',NULL,3,5,0,-1,0,0,0,0,0);
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
INSERT INTO "call_kinds" VALUES(1,X'A7D4463F200C3FE7E5BDCDACFBCF6597','chat',NULL,'openai','gpt-5-mini','gpt-5-mini',NULL,NULL);
CREATE TABLE call_outcomes (
    hour INTEGER NOT NULL,         -- hours since 1970, UTC
    kind TEXT NOT NULL,            -- error, retry, refused, capture_fault
    provider TEXT NOT NULL,        -- '' when unknown
    model TEXT NOT NULL,
    tag_set_id INTEGER NOT NULL REFERENCES tag_sets (id),
    count INTEGER NOT NULL,
    PRIMARY KEY (hour, kind, provider, model, tag_set_id)
) STRICT, WITHOUT ROWID;
INSERT INTO "call_outcomes" VALUES(492708,'error','openai','gpt-5-mini',3,1);
CREATE TABLE facet_keys (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,      -- 'tag:<key>', 'kind', 'api_key_id'
    value_count INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO "facet_keys" VALUES(1,'tag:user',2);
INSERT INTO "facet_keys" VALUES(2,'tag:tenant',1);
INSERT INTO "facet_keys" VALUES(3,'kind',2);
CREATE TABLE facets (
    id INTEGER PRIMARY KEY,        -- 0 is left for everything
    key_id INTEGER NOT NULL REFERENCES facet_keys (id),
    value TEXT NOT NULL,
    UNIQUE (key_id, value)
) STRICT;
INSERT INTO "facets" VALUES(1,1,'alice');
INSERT INTO "facets" VALUES(2,2,'acme');
INSERT INTO "facets" VALUES(3,1,'bob');
INSERT INTO "facets" VALUES(4,3,'["openai", "gpt-5-mini", "chat", "ok", "list"]');
INSERT INTO "facets" VALUES(5,3,'["openai", "gpt-5-mini", "chat", "ok", "none"]');
CREATE TABLE prices (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,   -- of source, ref and units
    source TEXT NOT NULL,          -- provider, list, override, none
    ref TEXT,
    units TEXT NOT NULL            -- JSON object: unit -> USD as a decimal string
) STRICT;
INSERT INTO "prices" VALUES(1,X'C00EE26B1E6CA1C1401D02B601C57765','list',NULL,'{}');
INSERT INTO "prices" VALUES(2,X'12727F596A2757BE0D62A3247CCF57EF','none',NULL,'{}');
INSERT INTO "prices" VALUES(3,X'9203D5DE1506BF837609ED9D9AF773D2','list','genai-prices 1','{}');
CREATE TABLE rollup_histograms (
    bucket INTEGER NOT NULL,       -- a day
    facet_id INTEGER NOT NULL,
    bin INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (bucket, facet_id, bin)
) STRICT, WITHOUT ROWID;
INSERT INTO "rollup_histograms" VALUES(29561700,0,23,1);
INSERT INTO "rollup_histograms" VALUES(29561700,1,23,1);
INSERT INTO "rollup_histograms" VALUES(29561700,2,23,1);
INSERT INTO "rollup_histograms" VALUES(29561700,4,23,1);
CREATE TABLE rollup_kinds (
    facet_id INTEGER PRIMARY KEY REFERENCES facets (id),
    provider TEXT,
    model TEXT,
    operation TEXT NOT NULL,
    status TEXT NOT NULL,
    cost_source TEXT NOT NULL
) STRICT;
INSERT INTO "rollup_kinds" VALUES(4,'openai','gpt-5-mini','chat','ok','list');
INSERT INTO "rollup_kinds" VALUES(5,'openai','gpt-5-mini','chat','ok','none');
CREATE TABLE rollup_watermarks (
    source TEXT PRIMARY KEY,       -- usage_events, amendments
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "rollup_watermarks" VALUES('amendments',0);
INSERT INTO "rollup_watermarks" VALUES('usage_events',2);
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
INSERT INTO "rollups" VALUES(60,29562480,0,0,2,0,0,3250,0,0,0,0,1,0,0,200,0,20,0,0,0,0,0,0,0,120,0,1);
INSERT INTO "rollups" VALUES(60,29562480,0,1,1,0,0,3250,0,0,0,0,0,0,0,100,0,10,0,0,0,0,0,0,0,120,0,1);
INSERT INTO "rollups" VALUES(60,29562480,0,2,1,0,0,3250,0,0,0,0,0,0,0,100,0,10,0,0,0,0,0,0,0,120,0,1);
INSERT INTO "rollups" VALUES(60,29562480,0,3,1,0,0,0,0,0,0,0,1,0,0,100,0,10,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "rollups" VALUES(60,29562480,0,4,1,0,0,3250,0,0,0,0,0,0,0,100,0,10,0,0,0,0,0,0,0,120,0,1);
INSERT INTO "rollups" VALUES(60,29562480,0,5,1,0,0,0,0,0,0,0,1,0,0,100,0,10,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "rollups" VALUES(1440,29561700,0,0,2,0,0,3250,0,0,0,0,1,0,0,200,0,20,0,0,0,0,0,0,0,120,0,1);
INSERT INTO "rollups" VALUES(1440,29561700,0,1,1,0,0,3250,0,0,0,0,0,0,0,100,0,10,0,0,0,0,0,0,0,120,0,1);
INSERT INTO "rollups" VALUES(1440,29561700,0,2,1,0,0,3250,0,0,0,0,0,0,0,100,0,10,0,0,0,0,0,0,0,120,0,1);
INSERT INTO "rollups" VALUES(1440,29561700,0,3,1,0,0,0,0,0,0,0,1,0,0,100,0,10,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "rollups" VALUES(1440,29561700,0,4,1,0,0,3250,0,0,0,0,0,0,0,100,0,10,0,0,0,0,0,0,0,120,0,1);
INSERT INTO "rollups" VALUES(1440,29561700,0,5,1,0,0,0,0,0,0,0,1,0,0,100,0,10,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "rollups" VALUES(1440,29561700,1,2,1,0,0,3250,0,0,0,0,0,0,0,100,0,10,0,0,0,0,0,0,0,120,0,1);
INSERT INTO "rollups" VALUES(1440,29561700,1,4,1,0,0,3250,0,0,0,0,0,0,0,100,0,10,0,0,0,0,0,0,0,120,0,1);
INSERT INTO "rollups" VALUES(1440,29561700,2,4,1,0,0,3250,0,0,0,0,0,0,0,100,0,10,0,0,0,0,0,0,0,120,0,1);
INSERT INTO "rollups" VALUES(1440,29561700,3,5,1,0,0,0,0,0,0,0,1,0,0,100,0,10,0,0,0,0,0,0,0,0,0,0);
CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "settings" VALUES('made_at','1795467527359194');
INSERT INTO "settings" VALUES('outcomes_counted','1');
INSERT INTO "settings" VALUES('time_zone','Europe/Berlin');
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
INSERT INTO "submissions" VALUES('openai','r1',1773748800000000,2,NULL,0,NULL);
CREATE TABLE tag_sets (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,   -- of the tags as JSON, keys sorted
    tags TEXT NOT NULL             -- JSON object
) STRICT;
INSERT INTO "tag_sets" VALUES(1,X'BAE2AFA28F753EA73EC6A2FA28B1C151','{"tenant":"acme","user":"alice"}');
INSERT INTO "tag_sets" VALUES(2,X'DFAA63B9FBF2DD526297352E53C5D661','{"user":"bob"}');
INSERT INTO "tag_sets" VALUES(3,X'EDB1D78113F3A88DA64EA4A59637A094','{"tenant":"acme"}');
CREATE TABLE tags (
    tag_set_id INTEGER NOT NULL REFERENCES tag_sets (id),
    key_id INTEGER NOT NULL REFERENCES facet_keys (id),
    facet_id INTEGER NOT NULL REFERENCES facets (id),
    PRIMARY KEY (tag_set_id, key_id)
) STRICT, WITHOUT ROWID;
INSERT INTO "tags" VALUES(1,1,1);
INSERT INTO "tags" VALUES(1,2,2);
INSERT INTO "tags" VALUES(3,2,2);
INSERT INTO "tags" VALUES(2,1,3);
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
INSERT INTO "usage_events" VALUES(1,X'01A20A3444C573C491DB9201F8E34360',1773748800000000,NULL,0,1,100,10,0,0,0,NULL,3250000000,1,'ok',NULL,120,NULL,1,NULL,NULL);
INSERT INTO "usage_events" VALUES(2,X'01A20A3444C57612939C1952789FCD2C',1773748800000000,NULL,0,1,100,10,0,0,0,NULL,NULL,2,'ok','no price',NULL,NULL,2,NULL,NULL);
INSERT INTO "usage_events" VALUES(3,X'01A20A3444C5704EAAB475F670DA919B',1773835200000000,NULL,0,1,100,10,0,0,0,NULL,7,1,'estimated','from bytes',NULL,NULL,1,NULL,NULL);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX tags_by_facet ON tags (facet_id, tag_set_id);
CREATE INDEX usage_events_by_time ON usage_events (created_at);
CREATE INDEX usage_events_by_tags ON usage_events (tag_set_id, created_at);
CREATE INDEX amendments_by_event ON amendments (event_id);
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
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('usage_events',3);
INSERT INTO "sqlite_sequence" VALUES('amendments',1);
COMMIT;
