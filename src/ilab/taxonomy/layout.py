"""Where the leaves of a taxonomy lie on disk.

A taxonomy is a folder with ``knowledge/``, ``compositional_skills/`` or ``foundational_skills/``, holding a
``qna.yaml`` at any depth below them; or one ``qna.yaml`` anywhere (its folder may stand for it). Symbolic links to
folders are not followed, and a link to a file must stay inside the taxonomy.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ilab.data import Kind
from ilab.errors import InputError

ROOTS = ("knowledge", "compositional_skills", "foundational_skills")
QNA, EVAL, ATTRIBUTION = "qna.yaml", "eval.yaml", "attribution.txt"


@dataclass(frozen=True)
class Layout:
    """``files`` are the ``qna.yaml`` files, sorted; names in messages are relative to ``root``."""

    root: Path
    files: tuple[Path, ...]
    warnings: tuple[str, ...] = ()

    def name(self, path: Path) -> str:
        """``path`` relative to the root, with ``/``."""
        root, whole = self.root.as_posix().rstrip("/") + "/", path.as_posix()
        return whole[len(root) :] if whole.startswith(root) else path.relative_to(self.root).as_posix()

    def leaf_path(self, file: Path, kind: Kind) -> str:
        """The leaf's name: its folder below the root, or one made from the folder's own name and its kind."""
        folder = self.name(file.parent)
        if folder.split("/")[0] in ROOTS:
            return folder
        root = "knowledge" if kind == "knowledge" else "compositional_skills"
        return f"{root}/{file.parent.resolve().name or 'leaf'}"

    def holds(self, path: Path) -> bool:
        """Whether ``path`` still lies in the taxonomy once links are followed."""
        for part in (path, *path.parents):
            if part == self.root:
                return True
            if part.is_symlink():
                break
        return path.resolve().is_relative_to(self.root.resolve())


def find_layout(path: Path) -> Layout:
    """The leaves at ``path``, a folder or one ``qna.yaml``. Raises ``InputError`` where there is none."""
    path = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
    if path.is_dir():
        if not any((path / name).is_dir() for name in ROOTS) and (path / QNA).is_file():
            return _single(path / QNA)
        return _tree(path)
    if not path.exists():
        raise InputError(
            "there is no such file or folder", where=str(path), hint="give the taxonomy's folder, or one qna.yaml"
        )
    if path.name != QNA:
        raise InputError(f"a taxonomy file must be named {QNA}", where=str(path), hint=f"mv {path.name} {QNA}")
    return _single(path)


def _single(file: Path) -> Layout:
    """The taxonomy begins above the innermost folder named like a root; without one it is the file's folder."""
    root = next((parent.parent for parent in file.parents if parent.name in ROOTS), file.parent)
    return Layout(
        root, (file,), tuple(_misnamed(file.parent, sorted(path.name for path in file.parent.iterdir()), root))
    )


def _tree(root: Path) -> Layout:
    files: list[Path] = []
    warnings: list[str] = []
    for name in ROOTS:
        for folder, below, names in os.walk(root / name, onerror=_unreadable):
            here = Path(folder)
            warnings += [
                f"{(here / link).relative_to(root).as_posix()}: symbolic link to a folder, not followed"
                for link in below
                if (here / link).is_symlink()
            ]
            warnings += _misnamed(here, names, root)
            if QNA in names:
                files.append(here / QNA)
            elif EVAL in names:
                warnings.append(f"{(here / EVAL).relative_to(root).as_posix()}: no {QNA} beside it, not read")
    if not files:
        raise InputError(
            f"the taxonomy is empty: no {QNA} below {root}", where=str(root), hint=_what_to_do(root, warnings)
        )
    return Layout(root, tuple(sorted(files)), tuple(sorted(warnings)))


def _what_to_do(root: Path, warnings: list[str]) -> str:
    outer = next((parent.parent for parent in (root, *root.parents) if parent.name in ROOTS), None)
    if outer is not None:
        return f"give the folder above it: {outer}"
    misnamed = next((line.split(":")[0] for line in warnings if "must be named" in line), None)
    if misnamed is not None:
        return f"mv {root / misnamed} {(root / misnamed).parent / QNA}"
    return "make a leaf with: ilab taxonomy new knowledge/science/my_topic   or give another folder"


def _misnamed(folder: Path, names: list[str], root: Path) -> list[str]:
    """Warnings about files that somebody meant as ours but that carry another spelling."""
    wanted = {"qna.yaml": QNA, "qna.yml": QNA, "eval.yaml": EVAL, "eval.yml": EVAL}
    return [
        f"{(folder / name).relative_to(root).as_posix()}: must be named {wanted[name.lower()]}, not read"
        for name in names
        if name.lower() in wanted and name not in (QNA, EVAL)
    ]


def _unreadable(error: OSError) -> None:
    if isinstance(error, FileNotFoundError):  # one of the three roots is not there
        return
    raise InputError(
        f"cannot be read: {error.strerror}", where=str(error.filename), hint="check the folder's permissions"
    )
