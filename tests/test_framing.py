"""Bytes into messages, however they are cut."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmw.capture.decoding import DecodingError, decoder
from costmw.capture.framing import FramingError, Message, ServerSentEvents, WholeBody
from costmw.capture.hiding import UsageChunkHider
from costmw.capture.reading import BodyReader
from costmw.providers.registry import FAMILIES

FORMATS = {f.api: f for formats in FAMILIES.values() for f in formats}


def events(data: bytes, cuts: list[int] | None = None) -> list[Message]:
    framing = ServerSentEvents()
    found: list[Message] = []
    start = 0
    for cut in [*sorted(cuts or []), len(data)]:
        found.extend(framing.feed(data[start:cut]))
        start = max(start, cut)
    found.extend(framing.end())
    return found


@pytest.mark.parametrize(
    ("expected", "data"),
    [
        ([(None, b"a")], b"data: a\n\n"),
        ([(None, b"a")], b"data:a\r\n\r\n"),
        ([(None, b"a")], b"data: a\r\r"),
        ([(None, b"a")], b"data: a"),
        ([("x", b"a\nb")], b"event: x\ndata: a\ndata: b\n\n"),
        ([("x", b"a\nb")], b"event: x\r\ndata: a\r\ndata: b\r\n\r\n"),
        ([(None, b"a"), (None, b"b")], b": hello\n\ndata: a\n\n: x\ndata: b\n\n"),
        ([(None, b"a")], b"\xef\xbb\xbfdata: a\n\n"),
        ([(None, b"a")], b"id: 1\nretry: 2\ndata: a\nnonsense\n\n"),
        ([(None, b" a ")], b"data:  a \n\n"),
        ([], b"event: ping\n\n\n\n"),
        ([(None, b"")], b"data\n\n"),
    ],
)
def test_server_sent_events(expected: list[Message], data: bytes) -> None:
    assert events(data) == expected
    assert events(data, list(range(len(data)))) == expected


LINES = st.sampled_from(
    [b"data: x", b"data:", b"event: e", b": c", b"", b"data: {}", b"id: 7", b"data: \xff\xfe"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(LINES, max_size=12), ENDS, st.lists(st.integers(0, 120), max_size=20))
def test_cuts_change_nothing(lines: list[bytes], end: bytes, cuts: list[int]) -> None:
    data = end.join(lines)
    assert events(data, [cut for cut in cuts if cut <= len(data)]) == events(data)


def test_an_event_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("costmw.capture.framing.MAX_EVENT_BYTES", 100)
    framing = ServerSentEvents()
    with pytest.raises(FramingError, match="longer than 100 bytes"):
        list(framing.feed(b"data: " + b"x" * 200))


def test_a_whole_body_is_one_message() -> None:
    body = WholeBody(limit=10)
    assert [*body.feed(b"ab"), *body.feed(b"cd"), *body.end()] == [(None, b"abcd")]
    with pytest.raises(FramingError, match=r"max_body_bytes \(10\)"):
        body.feed(b"x" * 11)


RAW_DEFLATE = zlib.compressobj(wbits=-zlib.MAX_WBITS)
BODIES = {
    "gzip": gzip.compress(b"hello" * 100),
    "deflate": zlib.compress(b"hello" * 100),
    "DEFLATE": RAW_DEFLATE.compress(b"hello" * 100) + RAW_DEFLATE.flush(),
    "gzip, deflate": zlib.compress(gzip.compress(b"hello" * 100)),
    "": b"hello" * 100,
    "identity": b"hello" * 100,
}


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize("coding", BODIES)
def test_content_codings_are_decoded_piece_by_piece(coding: str, step: int) -> None:
    body = BODIES[coding]
    decode = decoder(coding) or bytes
    pieces = [decode(body[n : n + step]) for n in range(0, len(body), step)]
    assert b"".join(pieces) == b"hello" * 100


def test_a_broken_or_unknown_coding_is_said() -> None:
    with pytest.raises(DecodingError, match="content encoding 'snappy' is not known"):
        decoder("snappy")
    decode = decoder("gzip")
    assert decode is not None
    with pytest.raises(DecodingError, match="not valid gzip"):
        decode(b"not gzip at all")


def test_a_coding_whose_package_is_missing_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    for name in ("brotli", "brotlicffi"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DecodingError, match=r"pip install 'costmw\[compression\]'"):
        decoder("br")


def test_the_hider_takes_out_the_usage_chunk_alone() -> None:
    stream = [
        b'data: {"choices":[{"delta":{"content":"\\"usage\\":{}, \\"choices\\":[]"}}]}\n\n',
        b'data: {"choices":[],"usage":null,"prompt_filter_results":[]}\n\n',
        b'data: {"choices": [ ], "usage": {"prompt_tokens": 1}}\n\n',
        b"data: [DONE]\n\n",
    ]
    for step in (1, 7, 10_000):
        hider = UsageChunkHider()
        data = b"".join(stream)
        out = b"".join(hider.feed(data[n : n + step]) for n in range(0, len(data), step))
        assert out + hider.end() == stream[0] + stream[1] + stream[3]


def test_the_hider_keeps_whole_events_when_one_is_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("costmw.capture.framing.MAX_EVENT_BYTES", 100)
    hider = UsageChunkHider()
    data = b'data: {"choices":[{}]}\n\n' + b"data: " + b"x" * 200
    with pytest.raises(FramingError):
        hider.feed(data)
    assert data == hider.end()


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(FORMATS)),
    st.sampled_from(["application/json", "text/event-stream"]),
    st.sampled_from(["", "gzip", "br", "zstd", "deflate"]),
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(
                [
                    b'data: {"usage":{"prompt_tokens":1}}\n\n',
                    b'{"usage":{"input_tokens":1,"output_tokens":{}}}',
                    b'event: message_delta\ndata: {"usage":7}\n\n',
                    b'data: {"type":"message_start","message":[1]}\n\n',
                    b'data: {"type":"response.completed","response":{"usage":"x"}}\n\n',
                    b"data: [DONE]\n\n",
                    b"data: 5\n\n",
                    b'{"usage":' + b"[" * 500,
                ]
            ),
        ),
        max_size=8,
    ),
)
def test_no_body_makes_a_reader_fail(
    api: str, content_type: str, encoding: str, pieces: list[bytes]
) -> None:
    reader = BodyReader(FORMATS[api], {"content-type": content_type}, encoding, 10_000)
    for piece in pieces:
        reader.feed(piece)
    reader.end()
    if reader.reading.usage is None:
        assert reader.reading.problem or reader.reading.not_billed
