"""The build context: the same content has the same hash and the same archive, wherever and whenever it is packed."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from infra.build_context import ROOT, BuildContext
from infra.components.images import IMAGES


@pytest.fixture
def context(tmp_path: Path) -> BuildContext:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text("print()\n")
    (tmp_path / "app" / "run").write_text("#!/bin/sh\n")
    (tmp_path / "requirements.txt").write_text("django\n")
    return BuildContext(paths=("app", "requirements.txt"), root=tmp_path)


def names(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getnames()


def test_times_do_not_change_hash_or_archive(context: BuildContext) -> None:
    before = context.content_hash, context.pack()
    for file in context.files():
        os.utime(file, (1, 1))

    assert (context.content_hash, context.pack()) == before


def test_a_byte_a_name_and_the_executable_bit_each_change_the_hash(context: BuildContext) -> None:
    hashes = [context.content_hash]
    (context.root / "app" / "main.py").write_text("print(1)\n")
    hashes.append(context.content_hash)
    (context.root / "app" / "main.py").rename(context.root / "app" / "other.py")
    hashes.append(context.content_hash)
    (context.root / "app" / "run").chmod(0o755)
    hashes.append(context.content_hash)

    assert len(set(hashes)) == 4


def test_what_python_and_editors_leave_behind_is_not_packed(context: BuildContext) -> None:
    before = context.content_hash
    (context.root / "app" / "__pycache__").mkdir()
    (context.root / "app" / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"x")
    (context.root / "app" / ".main.py.swp").write_bytes(b"x")

    assert context.content_hash == before
    assert names(context.pack()) == ["app/main.py", "app/run", "requirements.txt"]


def test_a_path_that_is_not_there_is_an_error_and_not_an_empty_image(context: BuildContext) -> None:
    missing = BuildContext(paths=("app", "gone"), root=context.root)

    with pytest.raises(FileNotFoundError):
        _ = missing.content_hash


def test_the_app_image_is_built_from_files_that_are_there() -> None:
    spec = IMAGES["app"]
    packed = names(BuildContext(paths=spec.paths).pack())

    assert (ROOT / spec.dockerfile).is_file()
    assert {"app/__init__.py", "requirements/app.txt", spec.dockerfile} <= set(packed)
