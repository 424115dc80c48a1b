"""The page's files: which there are, which are served, and that none was tampered with."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from costmw import Meter
from costmw.dashboard import Principal, assets
from costmw.dashboard.core import Dashboard, Request, Response

FOLDER = Path(assets.__file__).parent / "static"
NOT_SERVED = {"index.html", "vendor/LICENSE.md", "vendor/README.md"}


def get(meter: Meter, path: str) -> Response:
    return Dashboard(meter).handle(Request("GET", path, root="/_llmcost"), Principal())


def test_the_list_of_served_files_is_that_of_the_folder() -> None:
    there = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert set(assets.TYPES) == there - NOT_SERVED


def test_every_file_is_served_with_its_type(meter: Meter) -> None:
    digest = assets.load().digest
    for name, kind in assets.TYPES.items():
        response = get(meter, f"/static/{digest}/{name}")
        assert (response.status, response.headers["Content-Type"]) == (200, kind)
        assert response.body == (FOLDER / name).read_bytes()
        assert response.headers["Content-Length"] == str(len(response.body))


@pytest.mark.parametrize(
    "name",
    [
        "../core.py",
        "views/../../core.py",
        "..%2fcore.py",
        "/etc/passwd",
        "index.html",
        "vendor/README.md",
        "views",
        "views/",
        "",
        "main.js/",
        "main.js\0",
        "MAIN.JS",
        "views\\kpis.js",
    ],
)
def test_nothing_else_is_served(meter: Meter, name: str) -> None:
    assert get(meter, f"/static/{assets.load().digest}/{name}").status == 404


def test_another_version_s_files_are_not_served(meter: Meter) -> None:
    """What is kept forever must be what its address says."""
    assert get(meter, "/static/0123456789abcdef/main.js").status == 404
    assert get(meter, "/static/main.js").status == 404


def test_the_vendored_file_is_the_published_one() -> None:
    readme = (FOLDER / "vendor" / "README.md").read_text("utf-8")
    (stated,) = re.findall(r"`([0-9a-f]{64})`", readme)
    actual = hashlib.sha256((FOLDER / "vendor" / "chart.umd.min.js").read_bytes()).hexdigest()
    assert actual == stated
    assert actual == "87364cc2b2a76a6684929e7d6b80b18a897794db38400caff1fcf1791c6925d2"
    assert "MIT" in (FOLDER / "vendor" / "LICENSE.md").read_text("utf-8")


def test_own_scripts_make_no_markup_of_text_and_load_nothing_from_elsewhere() -> None:
    for path in [*FOLDER.glob("*.js"), *FOLDER.glob("views/*.js"), FOLDER / "index.html"]:
        text = path.read_text("utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, path.name
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), path.name
        assert not re.search(r"\bon[a-z]+=\"|\bstyle=\"", text), path.name


def test_money_is_never_read_as_a_float_but_for_pixels() -> None:
    for path in [*FOLDER.glob("*.js"), *FOLDER.glob("views/*.js")]:
        text = path.read_text("utf-8")
        assert "parseFloat" not in text
        assert not re.search(r"Number\([^)]*usd", text), path.name
