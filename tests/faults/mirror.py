"""Keeps a copy of what is surely on disk: each file as it was when its last sync came back.

SQLite asks its VFS to sync a file. The VFS of the very library that Python uses is
wrapped through ctypes: after each real sync of a database or its write-ahead log, the
file is copied to FILE.disk. What was written later would be lost without power.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import shutil
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_void_p
from pathlib import Path

OK = 0
METHODS = 18  # of version 3 of sqlite3_io_methods, after its version
SYNC = 4  # after xClose, xRead, xWrite and xTruncate

# SQLite keeps the pointer to the name, so that it is handed on as it came.
_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("version", c_int),
        ("file_size", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", c_void_p),
    )


class _Methods(ctypes.Structure):
    _fields_ = (("version", c_int), ("methods", c_void_p * METHODS))


class _File(ctypes.Structure):
    _fields_ = (("methods", POINTER(_Methods)),)


def library() -> ctypes.CDLL:
    """The SQLite that Python's sqlite3 module uses: linked to it, or inside of it."""
    module = ctypes.CDLL(_sqlite3.__file__)  # finds what it is linked to as well
    module.sqlite3_vfs_find.restype = POINTER(_Vfs)
    module.sqlite3_vfs_find.argtypes = [c_char_p]
    return module


_kept: list[object] = []  # what C points to must not be collected


def install(copy: Callable[[str], None] | None = None) -> None:
    """Copy each file to FILE.disk from now on whenever SQLite has synced it."""
    copy = copy or copy_as_synced
    vfs = library().sqlite3_vfs_find(None).contents
    really_open = _Open(vfs.open)
    names: dict[int, str] = {}
    wrapped: dict[int, _Methods] = {}

    def wrap(methods: _Methods) -> _Methods:
        own = _Methods.from_buffer_copy(methods)
        really_sync = _Sync(methods.methods[SYNC])

        def sync(file: int, flags: int) -> int:
            result = really_sync(file, flags)
            if result == OK:
                copy(names[file])
            return int(result)

        callback = _Sync(sync)
        own.methods[SYNC] = ctypes.cast(callback, c_void_p).value
        _kept.extend((own, callback))
        return own

    def open_(vfs_: int, name: int | None, file: int, flags: int, out: int) -> int:
        result = really_open(vfs_, name, file, flags, out)
        if result == OK and name is not None:
            names[file] = ctypes.string_at(name).decode()
            opened = _File.from_address(file)
            address = ctypes.addressof(opened.methods.contents)
            if address not in wrapped:
                wrapped[address] = wrap(opened.methods.contents)
            opened.methods = ctypes.pointer(wrapped[address])
        return int(result)

    callback = _Open(open_)
    _kept.append(callback)
    vfs.open = ctypes.cast(callback, c_void_p).value


def copy_as_synced(name: str) -> None:
    """Copy a file to FILE.disk, whole or not at all.

    Closing the file here gives up the locks that this process has on it: nobody else may
    use the database meanwhile.
    """
    new = Path(f"{name}.disk.new")
    shutil.copyfile(name, new)
    new.replace(f"{name}.disk")
