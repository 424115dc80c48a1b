"""The page's files: which there are, which are served, and that none was tampered with."""

from __future__ import annotations

import hashlib
import re
from itertools import combinations
from pathlib import Path

import pytest

from costmw import Meter
from costmw.dashboard import Principal, assets
from costmw.dashboard.core import Dashboard, Request, Response
from costmw.dashboard.joining import joined
from palette import VISIONS, colors, contrast, distance

FOLDER = Path(assets.__file__).parent / "static"
NOT_SERVED = {"index.html", "vendor/LICENSE.md", "vendor/README.md"}


def get(meter: Meter, path: str) -> Response:
    return Dashboard(meter).handle(Request("GET", path, root="/_llmcost"), Principal())


def sources(kind: str) -> set[str]:
    """The files of the folder with this ending."""
    return {str(path.relative_to(FOLDER)) for path in FOLDER.rglob(f"*{kind}")}


def test_every_file_of_the_folder_reaches_the_page() -> None:
    contents = assets.load().contents
    modules = set(re.findall(r"^// (\S+\.js)$", contents["page.js"].decode(), re.MULTILINE))
    assert modules == sources(".js") - {"first.js", "vendor/chart.umd.min.js"}
    assert {f"styles/{part}.css" for part in assets.STYLES} == sources(".css")
    there = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    served = set(assets.TYPES) - {"page.js", "style.css"}
    assert there == sources(".js") | sources(".css") | served | NOT_SERVED


def test_every_file_is_served_with_its_type(meter: Meter) -> None:
    loaded = assets.load()
    for name, kind in assets.TYPES.items():
        response = get(meter, f"/static/{loaded.digest}/{name}")
        assert (response.status, response.headers["Content-Type"]) == (200, kind)
        assert response.body == loaded.contents[name]
        assert response.headers["Content-Length"] == str(len(response.body))
    assert loaded.contents["first.js"] == (FOLDER / "first.js").read_bytes()


def test_modules_become_one_in_the_order_in_which_they_are_needed() -> None:
    modules = {
        "main.js": 'import {\n  b as c,\n} from "./views/b.js";\nc();\n',
        "views/b.js": 'import { a } from "../a.js";\nexport async function b() {}\n',
        "a.js": "export const a = 1;\nconst own = 2;\n",
    }
    assert joined("main.js", modules.__getitem__) == (
        "// a.js\nconst module_a = (() => {\nconst a = 1;\nconst own = 2;\nreturn { a };\n})();\n"
        "// views/b.js\nconst module_views_b = (() => {\nconst { a } = module_a;\n"
        "async function b() {}\nreturn { b };\n})();\n"
        "// main.js\nconst module_main = (() => {\nconst {\n  b: c,\n} = module_views_b;\n"
        "c();\nreturn {  };\n})();\n"
    )


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('import { b } from "./b.js";\n', "main.js -> b.js -> main.js"),
        ('import b from "./b.js";\n', "import b from"),
        ("export default 1;\n", "export default 1;"),
        ("export let a = 1;\n", "export let a = 1;"),
    ],
)
def test_modules_that_cannot_become_one_are_named(text: str, wrong: str) -> None:
    modules = {"main.js": text, "b.js": 'import { a } from "./main.js";\nexport const b = 1;\n'}
    with pytest.raises(ValueError, match=re.escape(wrong)):
        joined("main.js", modules.__getitem__)


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
        "page.js/",
        "page.js\0",
        "PAGE.JS",
        "main.js",
        "views/kpis.js",
        "styles/base.css",
    ],
)
def test_nothing_else_is_served(meter: Meter, name: str) -> None:
    assert get(meter, f"/static/{assets.load().digest}/{name}").status == 404


def test_another_version_s_files_are_not_served(meter: Meter) -> None:
    """What is kept forever must be what its address says."""
    assert get(meter, "/static/0123456789abcdef/page.js").status == 404
    assert get(meter, "/static/page.js").status == 404


def test_the_vendored_file_is_the_published_one() -> None:
    readme = (FOLDER / "vendor" / "README.md").read_text("utf-8")
    (stated,) = re.findall(r"`([0-9a-f]{64})`", readme)
    actual = hashlib.sha256((FOLDER / "vendor" / "chart.umd.min.js").read_bytes()).hexdigest()
    assert actual == stated
    assert actual == "87364cc2b2a76a6684929e7d6b80b18a897794db38400caff1fcf1791c6925d2"
    assert "MIT" in (FOLDER / "vendor" / "LICENSE.md").read_text("utf-8")


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_series_are_told_apart_with_any_colour_vision(theme: int, vision: str) -> None:
    style = (FOLDER / "styles" / "base.css").read_text("utf-8")
    names = [*(f"series-{n}" for n in range(1, 10)), "other"]
    shown = [colors(style, name)[theme] for name in names]
    least = min(distance(one, other, vision) for one, other in combinations(shown, 2))
    assert least > 0.095, "a tenth of the way from black to white"


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_it_is_on(theme: int) -> None:
    style = (FOLDER / "styles" / "base.css").read_text("utf-8")
    for text in ("text", "muted", "link", "warn", "bad", "good"):
        for ground in ("card", "page", "raised"):
            seen = contrast(colors(style, text)[theme], colors(style, ground)[theme])
            assert seen >= 4.5, (text, ground)


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
