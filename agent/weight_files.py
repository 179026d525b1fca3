"""The files of a version on disk against the hashes in the log: what is damaged is noticed before it is served."""

import hashlib
from collections.abc import Mapping
from pathlib import Path


def file_hashes(directory: Path) -> dict[str, str]:
    """Name -> SHA-256 of the files of a version directory."""
    return {file.name: _digest(file) for file in sorted(directory.iterdir())}


def damaged_files(directory: Path, files: Mapping[str, str]) -> list[str]:
    """Names of the files that are missing, or not what they were when the version was written; reads all of them."""
    return [
        name
        for name, digest in sorted(files.items())
        if not (directory / name).is_file() or _digest(directory / name) != digest
    ]


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
