"""A family is found whole, whichever thread asks first."""

from __future__ import annotations

import sys
import threading
import types

import pytest

from pellucid.errors import UsageError
from pellucid.registry import Registry

FILES = {
    "first": "gate.entered.set()\ngate.go.wait(600)\nfamily.register('first')(1)\n"
    "assert 'first' in family  # amid the scan\n",
    "second": "family.register('second', 'twin')(2)\n",
}


@pytest.fixture
def family(tmp_path, monkeypatch):
    """A registry, and events: its first file says that it is being imported, and waits."""
    name = "family_of_two"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    for file, lines in FILES.items():
        (tmp_path / name / f"{file}.py").write_text(f"from family_of_two_gate import family, gate\n{lines}")
    registry: Registry[int] = Registry(name)
    module = types.ModuleType("family_of_two_gate")
    module.family = registry
    module.gate = types.SimpleNamespace(entered=threading.Event(), go=threading.Event())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "family_of_two_gate", module)
    yield registry, module.gate
    module.gate.go.set()
    for each in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[each]


def test_nobody_sees_half_of_a_family(family):
    registry, gate = family
    seen: dict[int, list[str]] = {}

    def look(number):
        seen[number] = list(registry)

    threads = [threading.Thread(target=look, args=(number,), daemon=True) for number in range(3)]
    threads[0].start()
    assert gate.entered.wait(600)
    for thread in threads[1:]:
        thread.start()
    threads[1].join(0.2)  # it would have been there by now, with nothing
    assert seen == {}
    gate.go.set()
    for thread in threads:
        thread.join(600)
    assert seen == {number: ["first", "second", "twin"] for number in range(3)}


def test_one_is_found_by_its_file_and_what_is_not_there_is_told(family):
    registry, gate = family
    assert registry["second"] == 2 and not gate.entered.is_set()
    gate.go.set()
    with pytest.raises(UsageError, match="no 'third' in family_of_two; there are: first, second, twin"):
        registry["third"]
    assert "first" in registry and registry["twin"] == 2
    with pytest.raises(RuntimeError, match="registered twice"):
        registry.register("first")(3)
