"""What kind of file system a path is on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TABLE = Path("/proc/self/mounts")
"""Where Linux lists what is mounted."""

NETWORK = frozenset(
    {
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "gfs2",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb2",
        "smb3",
        "smbfs",
    }
)

SHARED_WITH_HOST = frozenset({"9p", "drvfs", "fuse", "prl_fs", "vboxsf", "virtiofs", "vmhgfs"})

IN_MEMORY = frozenset({"ramfs", "tmpfs"})

_FUSE_IS_LOCAL = frozenset({"fuse.fuse-overlayfs"})


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system: where it is mounted, and of which kind."""

    point: str
    kind: str


def is_network(kind: str) -> bool:
    """Whether a kind of file system is on another machine, as far as its name tells."""
    return kind in NETWORK or (kind.startswith("fuse.") and kind not in _FUSE_IS_LOCAL)


def mount_of(path: Path) -> Mount | None:
    """The file system of a path; None where the system does not tell."""
    try:
        lines = TABLE.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    whole, best = path.resolve(), None
    for line in lines:
        _, point, kind, *_ = (*line.split(" "), "", "", "")
        mount = Mount(_plain(point), kind)
        # Of two at one point, the later one lies above.
        is_above = mount.point and whole.is_relative_to(mount.point)
        if is_above and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _plain(text: str) -> str:
    """A path as it is: the table writes a space as `\\040`."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
