"""The cache of decoded films: content, quarantine, resumption, and the errors of a build."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from noisy_student.data import cache, decoding
from noisy_student.data import decode as decode_module
from noisy_student.data.cache import Cache
from noisy_student.data.decode import DecodeSettings, decode, source_stamps
from noisy_student.errors import DataError, NoisyStudentError, StoppedError, StorageError

SETTINGS = DecodeSettings(16, 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    generator = np.random.default_rng(0)
    for number in range(6):
        path = folder / f"p{number // 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20, 24), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the films that are decoded in this process, in order."""
    names: list[str] = []

    def spy(path: str, settings: DecodeSettings) -> Any:
        names.append(Path(path).name)
        return decode(path, settings)

    monkeypatch.setattr(decoding, "decode", spy)
    return names


def names_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))


def build(root: Path, tmp_path: Path, **changes: Any) -> Cache:
    values: dict[str, Any] = {"workers": 1, "max_bad_share": 0.5, **changes}
    images = values.pop("images", None) or names_of(root)
    return cache.build(root, images, values.pop("settings", SETTINGS), tmp_path / "cache", **values)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_are_the_decoded_films_in_the_order_asked_for(root: Path, tmp_path: Path, channels: int) -> None:
    settings = DecodeSettings(17, channels)
    images = names_of(root)[::-1]
    built = build(root, tmp_path, images=images, settings=settings)
    assert built.pixels.shape == (6, channels, 17, 17)
    assert built.pixels.dtype == np.uint8
    assert built.images == tuple(images)
    assert built.ok.all()
    assert built.bad() == []
    assert built.folder == tmp_path / "cache" / built.key
    for row, image in enumerate(images):
        np.testing.assert_array_equal(built.pixels[row], decode(root / image, settings))
    asked = [images[4], images[0], images[4]]
    rows = built.rows(asked)
    assert rows.dtype == np.int64
    assert rows.tolist() == [4, 0, 4]
    with pytest.raises(ValueError, match="read-only"):
        built.pixels[0] = 0


def test_the_key_depends_on_settings_and_list_not_on_the_root(root: Path, tmp_path: Path) -> None:
    first = build(root, tmp_path)
    moved = tmp_path / "elsewhere"
    shutil.copytree(root, moved)
    images = names_of(root)
    assert build(moved, tmp_path).key == first.key == cache.content_key(images, SETTINGS)
    others = {
        cache.content_key(images, DecodeSettings(18, 1)),
        cache.content_key(images, DecodeSettings(16, 3)),
        cache.content_key(images, DecodeSettings(16, 1, fit="pad")),
        cache.content_key(images, DecodeSettings(16, 1, fit="crop")),
        cache.content_key(images, DecodeSettings(16, 1, window=(0, 99))),
        cache.content_key(images, DecodeSettings(16, 1, window=(1, 99))),
        cache.content_key(images[::-1], SETTINGS),
        cache.content_key(images[1:], SETTINGS),
    }
    assert len(others) == 8
    assert first.key not in others


def test_the_files_of_a_finished_cache(root: Path, tmp_path: Path) -> None:
    damage(root / "p1/2.png")
    built = build(root, tmp_path)
    found = sorted(path.name for path in built.folder.iterdir())
    assert found == [".lock", "cache.json", "index.parquet", "pixels.u8", "quarantine.csv", "stamps.i64", "status.u8"]
    index = pd.read_parquet(built.folder / "index.parquet")
    assert list(index.columns) == ["image", "size", "mtime_ns", "status", "reason"]
    assert index["image"].tolist() == names_of(root)
    assert index["status"].tolist() == [1, 1, 2, 1, 1, 1]
    info = (root / "p0/0.png").stat()
    assert (index["size"][0], index["mtime_ns"][0]) == (info.st_size, info.st_mtime_ns)


def test_a_second_build_decodes_nothing(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    first = build(root, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    decoded.clear()
    again = build(root, tmp_path)
    assert decoded == []
    np.testing.assert_array_equal(again.pixels, first.pixels)
    assert {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before


def test_bad_films_are_put_in_quarantine_and_tried_again(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    good = (root / "p1/2.png").read_bytes()
    damage(root / "p1/2.png")
    built = build(root, tmp_path)
    assert built.ok.tolist() == [True, True, False, True, True, True]
    ((image, reason),) = built.bad()
    assert image == "p1/2.png"
    assert "cannot be decoded" in reason
    assert str(tmp_path) not in reason
    assert not built.pixels[2].any()
    assert (built.folder / "quarantine.csv").read_text().splitlines()[1].startswith("p1/2.png,")
    assert built.rows(["p1/3.png"]).tolist() == [3]
    with pytest.raises(DataError, match=r"'p1/2.png' could not be decoded \(1 such films"):
        built.rows(["p1/3.png", "p1/2.png"])
    with pytest.raises(DataError, match=r"has no film 'p9/9\.png'"):
        built.rows(["p9/9.png"])

    decoded.clear()
    assert build(root, tmp_path).bad() == built.bad()
    (root / "p1/2.png").write_bytes(good)
    assert build(root, tmp_path).ok.all()
    assert decoded == ["2.png", "2.png"]
    assert (built.folder / "quarantine.csv").read_text() == "image,reason\n"


def test_too_many_bad_films_are_an_error_that_keeps_the_cache(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    damage(root / "p0/0.png")
    damage(root / "p0/1.png")
    with pytest.raises(DataError, match=r"2 of 6 films cannot be decoded.*p0/0.png: ") as caught:
        build(root, tmp_path, max_bad_share=0.33)
    assert "quarantine.csv" in caught.value.hint
    decoded.clear()
    assert len(build(root, tmp_path, max_bad_share=0.34).bad()) == 2
    assert decoded == ["0.png", "1.png"]


def test_a_film_that_goes_away_during_the_build_is_bad(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stamps(folder: Path, images: list[str], **options: Any) -> Any:
        found = source_stamps(folder, images, **options)
        (root / "p2/5.png").unlink()
        return found

    images = names_of(root)
    monkeypatch.setattr(cache, "source_stamps", stamps)
    assert [image for image, _ in build(root, tmp_path, images=images).bad()] == ["p2/5.png"]


def test_a_changed_film_is_decoded_again_beside_a_reader(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    first = build(root, tmp_path)
    before = np.array(first.pixels)
    decoded.clear()
    Image.fromarray(np.full((30, 30), 77, dtype=np.uint8)).save(root / "p0/1.png")
    again = build(root, tmp_path)
    assert decoded == ["1.png"]
    assert (again.pixels[1] == 77).all()
    np.testing.assert_array_equal(again.pixels[[0, 2, 3, 4, 5]], before[[0, 2, 3, 4, 5]])
    np.testing.assert_array_equal(first.pixels, before)


def test_films_of_another_folder_with_the_same_names_sizes_and_times_are_decoded(
    root: Path, tmp_path: Path, decoded: list[str]
) -> None:
    for path in root.rglob("*.png"):
        Image.fromarray(np.full((20, 24), 10, dtype=np.uint8)).save(path, format="BMP")
        os.utime(path, ns=(1, 1))
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(root, copy)
    shutil.copytree(root, other)
    for path in other.rglob("*.png"):
        Image.fromarray(np.full((20, 24), 200, dtype=np.uint8)).save(path, format="BMP")
        os.utime(path, ns=(1, 1))
    build(root, tmp_path)
    decoded.clear()
    assert (build(copy, tmp_path).pixels == 10).all()
    assert decoded == []
    assert (build(other, tmp_path).pixels == 200).all()
    assert (build(root, tmp_path).pixels == 10).all()


def test_a_film_with_another_time_is_decoded_again(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    build(root, tmp_path)
    decoded.clear()
    info = (root / "p2/4.png").stat()
    os.utime(root / "p2/4.png", ns=(info.st_atime_ns, info.st_mtime_ns + 1))
    build(root, tmp_path)
    assert decoded == ["4.png"]


def test_a_killed_build_goes_on_where_it_stopped(
    root: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = names_of(root)
    whole = build(root, tmp_path / "whole")

    def stop(path: str, settings: DecodeSettings) -> Any:
        if len(decoded) == 4:
            raise KeyboardInterrupt
        decoded.append(Path(path).name)
        return decode(path, settings)

    decoded.clear()
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode", stop)
        with pytest.raises(KeyboardInterrupt):
            build(root, tmp_path)
    folder = tmp_path / "cache" / cache.content_key(images, SETTINGS)
    assert not (folder / "cache.json").exists()
    # What a power cut may do: the page of one film that was written is lost.
    pixels = np.memmap(folder / "pixels.u8", np.uint8, "r+", shape=(6, 16 * 16))
    pixels[2] = 0
    pixels.flush()
    decoded.clear()
    resumed = build(root, tmp_path)
    assert decoded == ["2.png", "4.png", "5.png"]
    np.testing.assert_array_equal(resumed.pixels, whole.pixels)
    assert resumed.ok.all()


_BUILD = """
import os, sys
from pathlib import Path
from noisy_student.data import cache, decode
if sys.argv[3] == "kill":
    pwrite = os.pwrite
    done = []
    def last(*given):
        done.append(pwrite(*given))
        if len(done) == 9:
            os.kill(os.getpid(), 9)
        return done[-1]
    os.pwrite = last
root = Path(sys.argv[1])
images = sorted(path.name for path in root.iterdir())
cache.build(root, images, decode.DecodeSettings(24, 1), Path(sys.argv[2]), workers=1, max_bad_share=1.0)
"""


def test_a_build_that_was_killed_ends_with_the_same_bytes(tmp_path: Path) -> None:
    root = tmp_path / "films"
    root.mkdir()
    draw = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(draw.integers(0, 256, (40, 50), dtype=np.uint8)).save(root / f"{number}.jpg")
    damage(root / "7.jpg")

    def run(folder: str, how: str) -> int:
        words = [sys.executable, "-c", _BUILD, str(root), str(tmp_path / folder), how]
        return subprocess.run(words, cwd=Path(cache.__file__).parents[2]).returncode

    assert run("killed", "kill") == -9
    (folder,) = (tmp_path / "killed").iterdir()
    assert not (folder / "cache.json").exists()
    assert np.fromfile(folder / "status.u8", np.uint8).tolist().count(1) == 8  # the ninth was written and not yet noted
    assert run("killed", "go on") == run("whole", "go on") == 0
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "whole" / folder.name / path.name).read_bytes(), path.name


def test_files_of_a_wrong_size_start_the_cache_anew(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    first = build(root, tmp_path)
    before = np.array(first.pixels)
    with (first.folder / "status.u8").open("r+b") as stream:
        stream.truncate(3)
    decoded.clear()
    np.testing.assert_array_equal(build(root, tmp_path).pixels, before)
    assert len(decoded) == 6


def test_workers_give_the_same_pixels(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(root / "p2/4.png")
    inline = build(root, tmp_path / "inline", workers=1)
    monkeypatch.setattr(decoding, "INLINE", 0)
    parallel = build(root, tmp_path, workers=2)
    np.testing.assert_array_equal(parallel.pixels, inline.pixels)
    assert parallel.bad() == inline.bad()
    first, second = (pd.read_parquet(each.folder / "index.parquet") for each in (inline, parallel))
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_that_is_stopped_keeps_what_is_decoded(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str], workers: int
) -> None:
    monkeypatch.setattr(decoding, "INLINE", 0)
    monkeypatch.setattr(decoding, "CHUNK", 1)
    asked = iter([False, True])
    with pytest.raises(StoppedError, match="stopped while films were being decoded") as caught:
        build(root, tmp_path, workers=workers, stop=lambda: next(asked))
    assert "--resume" in caught.value.hint
    assert 0 < len(decoded) < 6
    decoded.clear()
    assert build(root, tmp_path, workers=1).ok.all()
    assert len(decoded) < 6


def test_a_killed_worker_is_an_error_that_says_how_to_go_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "INLINE", 0)
    monkeypatch.setattr(decoding, "_start_worker", os.abort)
    with pytest.raises(NoisyStudentError, match="a worker process was killed") as caught:
        build(root, tmp_path, workers=2)
    assert "decoded films are kept" in caught.value.hint


def test_workers_import_neither_pandas_nor_torch() -> None:
    code = "import sys, noisy_student.data.cache; print({'pandas', 'torch', 'pyarrow'} & set(sys.modules))"
    folder = Path(cache.__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert result.stdout.strip() == "set()"


def test_missing_films_are_named_before_anything_is_decoded(root: Path, tmp_path: Path, decoded: list[str]) -> None:
    gone = [f"p9/{number}.png" for number in range(5)]
    with pytest.raises(DataError, match=r"5 of 11 films are missing .*such as p9/0.png, p9/1.png") as caught:
        build(root, tmp_path, images=[*names_of(root), *gone])
    assert caught.value.message.endswith("p9/2.png")
    assert decoded == []
    assert not (tmp_path / "cache").exists()


def test_symbolic_links_may_not_leave_the_root(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(root / "p0/0.png", outside / "x.png")
    (root / "p0/inside.png").symlink_to("../p1/2.png")
    (root / "p8").symlink_to("p2")
    built = build(root, tmp_path, images=["p0/inside.png", "p8/4.png"])
    np.testing.assert_array_equal(built.pixels[0], decode(root / "p1/2.png", SETTINGS))
    (root / "p0/link.png").symlink_to(outside / "x.png")
    (root / "folder").symlink_to(outside)
    (root / "p0/dangling.png").symlink_to("nowhere.png")
    for image in ("p0/link.png", "folder/x.png", "../outside/x.png"):
        with pytest.raises(DataError, match="lies outside"):
            build(root, tmp_path, images=[image])
    with pytest.raises(DataError, match="are missing"):
        build(root, tmp_path, images=["p0/dangling.png"])


def test_links_that_lead_to_themselves_are_put_in_quarantine(root: Path, tmp_path: Path) -> None:
    (root / "p0/loop.png").symlink_to("loop.png")
    (root / "ring").symlink_to("ring")
    (root / "up").symlink_to(".")
    built = build(root, tmp_path, images=["p0/0.png", "p0/loop.png", "ring/0.png", "up/up/p0/0.png"])
    assert [image for image, _ in built.bad()] == ["p0/loop.png", "ring/0.png"]
    assert all("symbolic links" in reason for _, reason in built.bad())
    np.testing.assert_array_equal(built.pixels[0], built.pixels[3])


def test_a_root_that_is_a_link_itself_is_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    images = names_of(root)
    assert build(tmp_path / "link", tmp_path, images=images).ok.all()


@pytest.mark.parametrize("images", [[], ["p0/0.png", "p0/0.png"]])
def test_an_empty_or_double_list_is_an_error(root: Path, tmp_path: Path, images: list[str]) -> None:
    with pytest.raises(DataError, match="is empty or names a film twice"):
        cache.build(root, images, SETTINGS, tmp_path, workers=1, max_bad_share=0)


def test_a_full_disk_is_a_storage_error(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(StorageError, match="the disk is full"):
            build(root, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda *_: 7)
        with pytest.raises(StorageError, match="the disk is full"):
            build(root, tmp_path)
    assert build(root, tmp_path).ok.all()


def test_a_write_that_fails_while_films_are_decoded_is_not_lost(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system says once that a write failed: the flush at the end would know nothing of it."""
    failed = threading.Event()
    fsync = os.fsync

    def once(descriptor: int) -> None:
        if not failed.is_set() and threading.current_thread() is not threading.main_thread():
            failed.set()
            raise OSError(errno.ENOSPC, "no space")
        fsync(descriptor)

    def slow(path: str, settings: DecodeSettings) -> Any:
        assert failed.wait(10)
        return decode(path, settings)

    monkeypatch.setattr(cache, "FLUSH_EVERY", 0.0)
    monkeypatch.setattr(os, "fsync", once)
    monkeypatch.setattr(decoding, "decode", slow)
    with pytest.raises(StorageError, match="the disk is full"):
        build(root, tmp_path)


def test_space_is_checked_before_the_build(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(StorageError, match="the cache of decoded films needs"):
        build(root, tmp_path)


def test_a_second_process_waits_for_the_first(
    root: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(root, tmp_path)
    decoded.clear()
    waiting = threading.Event()
    monkeypatch.setattr(cache._log, "warning", lambda *_: waiting.set())
    done: list[Cache] = []
    with (first.folder / ".lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: done.append(build(root, tmp_path)))
        thread.start()
        assert waiting.wait(20)
        assert not done
    thread.join(20)
    assert done[0].ok.all()
    assert decoded == []


def test_progress_goes_to_stderr_only_if_asked_for(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(root, tmp_path)
    assert capsys.readouterr() == ("", "")
    build(root, tmp_path / "other", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "6/6" in err
    assert "film" in err


def test_every_long_look_at_the_films_has_its_bar(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a network drive it takes minutes to look for the films of a large set; so does checking what is decoded."""
    monkeypatch.setattr(cache, "DELAY", 0)
    monkeypatch.setattr(decode_module, "DELAY", 0)
    (build(root, tmp_path).folder / "cache.json").unlink()
    capsys.readouterr()
    build(root, tmp_path, progress=True)
    err = capsys.readouterr().err
    assert "look for films: 100%" in err
    assert "check decoded films: 100%" in err


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NS_CACHE", str(tmp_path))
    assert cache.default_folder() == tmp_path
    monkeypatch.delenv("NS_CACHE")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache.default_folder() == Path("/home/someone/.cache/noisy_student")
