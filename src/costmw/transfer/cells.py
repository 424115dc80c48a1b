"""Text in the cells of a CSV file, harmless to spreadsheets and exactly reversible.

A spreadsheet runs a cell as a formula when it begins with one of `= + - @`, full-width or
not, a tab, a line end or NUL. Such text gets an apostrophe in front, which spreadsheets
take as "this is text" (https://owasp.org/www-community/attacks/CSV_Injection). So does text
that only looks as if it had got one, and text that is empty, which is not the same as NULL.
"""

from __future__ import annotations

import re

_BEGINS = r"(?:[=+\-@\t\r\n\0\uff0b\uff0d\uff1d\uff20]|\Z)"
_TO_MARK = re.compile(f"'*{_BEGINS}")
_MARKED = re.compile(f"'+{_BEGINS}")


def text_cell(text: str | None) -> str:
    """The cell of a text; None is an empty cell."""
    if text is None:
        return ""
    return f"'{text}" if _TO_MARK.match(text) else text


def cell_text(cell: str) -> str | None:
    """The text of a cell, as it was before `text_cell`."""
    if not cell:
        return None
    return cell[1:] if _MARKED.match(cell) else cell
