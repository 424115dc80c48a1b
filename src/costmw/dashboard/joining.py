"""The modules of the page as one file: small files are kind to readers, few to networks.

Nothing is translated. Each module becomes a function that is called once and gives what it
exports, after those that it imports. Modules keep to two forms: `import { a, b as c } from
"./other.js";` and `export` before a function, class or const.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

_IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.[^"]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async function|function|class|const) (\w+))", re.MULTILINE)
_ANOTHER_FORM = re.compile(r"^(?:import|export)\b(?!\().*", re.MULTILINE)


def joined(main: str, read: Callable[[str], str]) -> str:
    """`main` and all modules that it needs, as the text of one module.

    Args:
        main: the name of the module to begin with.
        read: gives the text of a module by its name, a path from where `main` is.

    Raises:
        ValueError: when modules need each other in a circle, or a form is not known.
    """
    made: dict[str, str] = {}
    _add(main, read, made, ())
    return "".join(made.values())


def _add(
    name: str, read: Callable[[str], str], made: dict[str, str], needed_by: tuple[str, ...]
) -> None:
    if name in needed_by:
        raise ValueError(f"modules need each other: {' -> '.join((*needed_by, name))}")
    if name in made:
        return
    folder = posixpath.dirname(name)

    def bound(found: re.Match[str]) -> str:
        other = posixpath.normpath(posixpath.join(folder, found[2]))
        _add(other, read, made, (*needed_by, name))
        return f"const {{{found[1].replace(' as ', ': ')}}} = {_variable(other)};\n"

    text = _IMPORT.sub(bound, read(name))
    exported = ", ".join(_EXPORT.findall(text))
    text = _EXPORT.sub("", text)
    if unknown := _ANOTHER_FORM.search(text):
        raise ValueError(f"{name} has a form of import or export that is not known: {unknown[0]}")
    made[name] = (
        f"// {name}\nconst {_variable(name)} = (() => {{\n{text}return {{ {exported} }};\n}})();\n"
    )


def _variable(name: str) -> str:
    return "module_" + re.sub(r"\W", "_", name.removesuffix(".js"))
