"""Where Chromium is for the browser tests: `python -m tests.chromium` installs it where it can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

INSTALL = "apt-get install -y --no-install-recommends chromium fonts-dejavu-core"


def find() -> str | None:
    """The path of an installed Chromium or Chrome."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return path
    return None


def main() -> None:
    """Install Chromium by apt-get if this is root on Debian; otherwise say what is left out."""
    if find():
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing Chromium for the browser tests ...", flush=True)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in ("apt-get update -q", INSTALL):
            subprocess.run(command.split(), env=quiet, stdout=subprocess.DEVNULL, check=False)
    if not find():
        message = f"No Chromium: the browser tests are left out. To run them: sudo {INSTALL}"
        print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
