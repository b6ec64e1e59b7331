"""What is compiled is what its sources say, or it does not run."""

import hashlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from exchange import compiled
from exchange.compiled import check_sources, described

SHARD = "exchange/engine/shard.py"
LIST = Path(__file__).parent.parent / "tools" / "compiled_modules.txt"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout in which the shard was compiled."""
    source = tmp_path / SHARD
    source.parent.mkdir(parents=True)
    source.write_bytes(b"VERSION = 1\n")
    digests = {SHARD: hashlib.sha256(b"VERSION = 1\n").hexdigest()}
    (tmp_path / "exchange" / "compiled.json").write_text(json.dumps(digests), "ascii")
    return tmp_path


def test_sources_that_were_compiled_as_they_are_now_pass(root: Path) -> None:
    check_sources(root)


def test_a_source_that_changed_since_stops_the_import_and_says_what_to_do(root: Path) -> None:
    (root / SHARD).write_bytes(b"VERSION = 2\n")
    with pytest.raises(ImportError, match=rf"{SHARD} changed since: run `make install` .* or `make install COMPILE=0`"):
        check_sources(root)


def test_so_does_one_that_is_gone(root: Path) -> None:
    (root / SHARD).unlink()
    with pytest.raises(ImportError, match=SHARD):
        check_sources(root)


def test_a_checkout_in_which_nothing_was_compiled_passes(root: Path) -> None:
    (root / "exchange" / "compiled.json").unlink()
    (root / SHARD).write_bytes(b"VERSION = 2\n")
    check_sources(root)


def test_a_module_says_how_it_runs() -> None:
    assert described(compiled) == "pure Python"
    module = ModuleType("shard")
    module.__file__ = "exchange/engine/shard.cpython-311-x86_64-linux-gnu.so"
    assert described(module) == "compiled"


def test_the_list_of_modules_is_sorted_and_names_files_that_exist() -> None:
    modules = LIST.read_text("ascii").splitlines()
    assert modules == sorted(set(modules))
    assert [module for module in modules if not (LIST.parent.parent / module).is_file()] == []
