"""Whether modules run compiled, and that those which do are what their sources say.

A compiled module hides its source: an edit would change nothing, and nobody would hear of it. So the build writes the
digests of the sources that it compiles into `compiled.json`, and the engine, without which no compiled module is
imported, compares them before anything of it runs. Without that file nothing is compiled.
"""

import hashlib
import json
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


def check_sources(root: Path = ROOT) -> None:
    """Raise `ImportError` if a source under `root` is not the one that was compiled."""
    try:
        digests: dict[str, str] = json.loads((root / "exchange" / "compiled.json").read_bytes())
    except FileNotFoundError:
        return
    changed = [file for file, digest in digests.items() if _digest(root / file) != digest]
    if changed:
        raise ImportError(
            f"expected the sources that were compiled, {', '.join(changed)} changed since: "
            "run `make install` to compile again, or `make install COMPILE=0` to do without"
        )


def described(module: ModuleType) -> str:
    """Return how a module runs: "compiled" or "pure Python"."""
    return "pure Python" if (module.__file__ or "").endswith(".py") else "compiled"


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except FileNotFoundError:
        return "none"
