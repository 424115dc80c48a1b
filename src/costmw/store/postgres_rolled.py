"""Events as they count in the rollups, read from their rows."""

from __future__ import annotations

COUNTED = """
e.seq, (extract(epoch FROM e.created_at) * 1000000)::bigint, e.tag_set_id, e.call_kind_id,
e.status, p.source, e.first_in_request, e.request_id IS NOT NULL, e.cost_pico_usd,
e.reason IS NOT NULL, e.input_tokens, e.output_tokens, e.cache_read_input_tokens,
e.cache_write_input_tokens, e.reasoning_output_tokens, e.latency_ms, e.time_to_first_chunk_ms
"""
"""What `Rolled` is made of: columns of an event `e` and its price `p`."""

AMENDMENTS_OF = """
SELECT a.event_id, a.status, p.source, a.cost_pico_usd, a.estimated_cost_pico_usd, a.unpriced,
    a.input_tokens, a.output_tokens, a.cache_read_input_tokens, a.cache_write_input_tokens,
    a.reasoning_output_tokens, a.seq
FROM amendments a LEFT JOIN prices p ON p.id = a.price_id
WHERE a.event_id = ANY($1::uuid[]) ORDER BY a.seq
"""
"""The event, and then what `Rolled.amend` takes."""
