"""What the tests of the doctor share: a run over an app, and ways to ask what was found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from textwrap import dedent

from costmw.doctor import Finding

ABOUT_THIS_MACHINE = {"store-temporary", "store-in-container", "store-on-network", "disk-full"}
"""Findings that depend on where the tests keep their files, not on what they set up."""


def codes(findings: Iterable[Finding], *, above_info: bool = False) -> set[str]:
    """The kinds of findings that are about the set-up."""
    return {
        one.code
        for one in findings
        if one.code not in ABOUT_THIS_MACHINE and (one.level != "info" or not above_info)
    }


def the(findings: Iterable[Finding], code: str) -> Finding:
    """The only finding of a kind."""
    (found,) = (one for one in findings if one.code == code)
    return found


def write_app(folder: Path, source: str, name: str = "main") -> None:
    """Make a module in a folder."""
    (folder / f"{name}.py").write_text(dedent(source))


def run_doctor(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `costmw doctor` in a folder, with no variable of costmw but those given."""
    return run_python(folder, "-m", "costmw.cli", "doctor", *arguments, **environ)


def run_python(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with no variable of costmw but those given."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("COSTMW_")}
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=folder,
        env={**clean, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


def doctor(folder: Path, *arguments: str, **environ: str) -> list[Finding]:
    """The findings of `costmw doctor --json` in a folder."""
    done = run_doctor(folder, *arguments, "--json", **environ)
    assert done.stdout, done.stderr
    findings = [Finding(**one) for one in json.loads(done.stdout)]
    assert done.returncode == any(one.level == "error" for one in findings)
    return findings
