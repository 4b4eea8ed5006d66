"""The search for Pulumi's engine: the order of ways, and what is refused on each."""

import hashlib
import http.server
import io
import re
import stat
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from scripts import pulumi_engine
from scripts.pulumi_engine import GO_MODULE, VERSION, EngineMissing, EngineSearch, Unavailable, release_platform

ARCHIVE = f"pulumi-v{VERSION}-{release_platform()}.tar.gz"
CHECKSUMS = f"pulumi-{VERSION}-checksums.txt"


def executable(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho v{version}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A release server on loopback, and the folder that it serves."""
    folder = tmp_path / "releases"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def search(tmp_path: Path, said: list[str], releases: tuple[str, Path]) -> EngineSearch:
    """Nothing on PATH, nothing in the cache, an empty release server, no go."""
    return EngineSearch(
        cache=tmp_path / "cache", path=str(tmp_path / "bin"), say=said.append, releases=releases[0], environ={}
    )


def publish(folder: Path, *, damaged: bool = False, entry: str = "pulumi/pulumi") -> None:
    script = f"#!/bin/sh\necho v{VERSION}\n".encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(entry)
        member.size, member.mode = len(script), 0o755
        tar.addfile(member, io.BytesIO(script))
    content = buffer.getvalue()
    (folder / ARCHIVE).write_bytes(content + b"x" if damaged else content)
    (folder / CHECKSUMS).write_text(f"{'0' * 64}  another.tar.gz\n{hashlib.sha256(content).hexdigest()}  {ARCHIVE}\n")


def test_a_sufficient_engine_on_path_is_used(search: EngineSearch, tmp_path: Path) -> None:
    engine = executable(tmp_path / "bin" / "pulumi", "3.250.0")
    executable(search.cached, VERSION)

    assert search.find() == engine


@pytest.mark.parametrize("version", ["3.249.9", "2.300.0", "nonsense"])
def test_an_engine_on_path_that_is_too_old_is_passed_over(search: EngineSearch, tmp_path: Path, version: str) -> None:
    executable(tmp_path / "bin" / "pulumi", version)
    executable(search.cached, VERSION)

    assert search.find() == search.cached


def test_an_old_engine_does_not_hide_a_good_one_behind_it(search: EngineSearch, tmp_path: Path) -> None:
    executable(tmp_path / "old" / "pulumi", "3.100.0")
    good = executable(tmp_path / "bin" / "pulumi", "3.260.0")
    both = EngineSearch(
        cache=search.cache, path=f"{tmp_path / 'old'}:{tmp_path / 'bin'}", say=print, releases="", environ={}
    )

    assert both.find() == good


def test_the_link_that_bootstrap_makes_is_not_found_as_an_engine(search: EngineSearch, tmp_path: Path) -> None:
    link = tmp_path / "bin" / "pulumi"
    link.parent.mkdir()
    link.symlink_to(executable(search.cached, VERSION))
    own = EngineSearch(cache=search.cache, path=search.path, say=print, ours=link, releases="", environ={})

    assert own.find() == search.cached


def test_the_command_of_a_region_is_not_taken_for_the_engine_that_it_calls(
    search: EngineSearch, tmp_path: Path
) -> None:
    command = executable(tmp_path / "bin" / "pulumi", VERSION)
    command.write_text(f"#!/bin/sh\n# calls localgcp.pulumi.engine\necho v{VERSION}\n")
    executable(search.cached, VERSION)

    assert search.find() == search.cached


def test_a_release_is_downloaded_once_and_checked(
    search: EngineSearch, releases: tuple[str, Path], said: list[str]
) -> None:
    publish(releases[1])

    assert search.find() == search.cached
    assert search.cached.stat().st_mode & stat.S_IXUSR
    assert said == [f"pulumi engine: downloading {ARCHIVE} (about 150 MB), once"]
    (releases[1] / ARCHIVE).unlink()
    assert search.find() == search.cached


def test_a_download_with_another_checksum_is_not_used(search: EngineSearch, releases: tuple[str, Path]) -> None:
    publish(releases[1], damaged=True)

    with pytest.raises(EngineMissing, match="but the release says"):
        search.find()

    assert list(search.cache.iterdir()) == []


def test_a_release_whose_checksum_is_not_listed_is_not_used(search: EngineSearch, releases: tuple[str, Path]) -> None:
    publish(releases[1])
    (releases[1] / CHECKSUMS).write_text(f"{'0' * 64}  another.tar.gz\n")

    with pytest.raises(Unavailable, match="does not name"):
        search.download()


def test_an_archive_that_writes_outside_its_folder_is_not_unpacked(
    search: EngineSearch, releases: tuple[str, Path], tmp_path: Path
) -> None:
    publish(releases[1], entry="../../escaped")

    with pytest.raises(Unavailable, match="which is not below pulumi/"):
        search.download()

    assert not list(tmp_path.rglob("escaped"))


def test_a_failure_lists_each_way_and_says_what_to_install(search: EngineSearch) -> None:
    with pytest.raises(EngineMissing) as caught:
        search.find()

    lines = str(caught.value).splitlines()
    assert lines[:3] == [
        "found no Pulumi engine:",
        "  - PATH has no pulumi",
        f"  - the cache has no {search.cached}",
    ]
    assert lines[3].startswith(f"  - {search.releases} cannot be read: ")
    assert lines[4] == "  - it cannot be built, because PATH has no go"
    assert lines[5].startswith("Install Pulumi 3.250 or newer")


def test_without_a_release_the_engine_is_built_from_our_module(
    search: EngineSearch, tmp_path: Path, said: list[str]
) -> None:
    go = executable(tmp_path / "bin" / "go", "unused")
    go.write_text(
        "#!/bin/sh\n"
        f'echo "$PWD $GOFLAGS $*" > {tmp_path}/asked\n'
        'while [ "$1" != -o ]; do shift; done\n'
        f'printf \'#!/bin/sh\\necho v{VERSION}\\n\' > "$2"\n/bin/chmod +x "$2"\n'
    )

    assert search.find() == search.cached
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith(f"{GO_MODULE} -mod=readonly build -trimpath -ldflags")
    assert f"version.Version=v{VERSION}" in asked
    assert "Three to six minutes on two cores, once" in said[0]


def test_a_failed_build_says_what_the_compiler_said(search: EngineSearch, tmp_path: Path) -> None:
    go = executable(tmp_path / "bin" / "go", "unused")
    go.write_text("#!/bin/sh\necho 'go: missing go.sum entry' >&2\nexit 1\n")

    with pytest.raises(EngineMissing, match=r"failed: go: missing go\.sum entry"):
        search.find()

    assert list(search.cache.iterdir()) == []


def test_the_pinned_module_is_the_version_that_is_searched_for() -> None:
    required = re.search(r"github\.com/pulumi/pulumi/pkg/v3 v(\S+)", (GO_MODULE / "go.mod").read_text())

    assert required is not None
    assert required[1] == VERSION
    assert pulumi_engine.GO_PACKAGE in (GO_MODULE / "tools.go").read_text()


def test_a_cache_that_cannot_be_written_is_told_with_the_remedy(
    search: EngineSearch, releases: tuple[str, Path], tmp_path: Path
) -> None:
    publish(releases[1])
    (tmp_path / "file").write_text("")
    go = executable(tmp_path / "bin" / "go", "1.25")

    with pytest.raises(EngineMissing, match=r"cannot be written \(Not a directory\): set XDG_CACHE_HOME"):
        replace(search, cache=tmp_path / "file" / "cache", path=str(go.parent)).find()
