"""The app, by the name that its server is given: `main:app`, `main:create_app()`."""

from __future__ import annotations

import ast
import contextlib
import importlib
import sys
import traceback
from pathlib import Path

from costmw.errors import ConfigError

FORM = "as uvicorn and gunicorn take it: main:app, or main:create_app()"


def load_app(target: str) -> object:
    """Import an app; what it prints goes to the standard error.

    Raises:
        ConfigError: when there is none of that name, or it cannot be imported.
    """
    module_name, colon, expression = target.partition(":")
    if not module_name or not colon or not expression:
        raise ConfigError(f"{target!r} does not name an app; say it {FORM}")
    call = _parsed(expression)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            module = importlib.import_module(module_name)
            found = _attribute(module, call.func if isinstance(call, ast.Call) else call)
            if isinstance(call, ast.Call):
                found = found(  # type: ignore[operator]
                    *(ast.literal_eval(value) for value in call.args),
                    **{one.arg or "": ast.literal_eval(one.value) for one in call.keywords},
                )
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{target} cannot be imported: {_said(error)}") from error
    if not callable(found):
        raise ConfigError(f"{target} is a {type(found).__name__}, which cannot be served")
    return found


def _parsed(expression: str) -> ast.expr:
    try:
        parsed = ast.parse(expression, mode="eval").body
    except SyntaxError:
        parsed = ast.Constant(None)
    named = parsed.func if isinstance(parsed, ast.Call) else parsed
    if not isinstance(named, ast.Name | ast.Attribute):
        raise ConfigError(f"{expression!r} does not name an app; say it {FORM}")
    return parsed


def _attribute(module: object, name: ast.expr) -> object:
    found = module
    for part in ast.unparse(name).split("."):
        found = getattr(found, part)
    return found


# What these say are names and places; the messages of others may hold values of settings.
_HARMLESS = (ImportError, SyntaxError, NameError, AttributeError, KeyError, ConfigError)


def _said(error: BaseException) -> str:
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (__file__, importlib.__file__) and frame.filename[:1] != "<"
    ]
    where = f", at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    what = f": {error}" if isinstance(error, _HARMLESS) else ""
    return f"{type(error).__name__}{what}{where}"
