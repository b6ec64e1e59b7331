"""Generates the Python code of the gRPC API.

    python tools/generate_protos.py [DESTINATION]

From `protos/exchange/v1/*.proto` it makes `DESTINATION/exchange/v1/`: messages, stubs of the
services, and type stubs of both. The build runs it with the directory of the wheel (`setup.py`),
`make protos` with the checkout, the default. It needs the packages that `build-system.requires`
names in `pyproject.toml`.

A file that would not change is left alone, one that changes is replaced at once, and one whose
proto is gone is deleted; so a process that imports the package meanwhile sees whole files only.
"""

import argparse
import importlib.metadata
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("exchange/v1")
PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
INIT = '"""Generated from protos/exchange/v1 by tools/generate_protos.py. Do not edit."""\n'


def plugin_path(name: str) -> Path:
    """Where the plugin `name` of the mypy-protobuf is that this interpreter imports.

    PATH would not do: it may lack the virtual environment, or name another one first.
    """
    for file in importlib.metadata.files("mypy-protobuf") or []:
        if file.name == name:
            return Path(str(file.locate())).resolve()
    raise FileNotFoundError(
        f"expected mypy-protobuf to have installed {name}, found no such file: install mypy-protobuf again"
    )


def compile_protos(destination: Path) -> None:
    """Runs protoc on every proto; raises RuntimeError if it fails, having printed why."""
    source = ROOT / "protos"
    protos = sorted((source / PACKAGE).glob("*.proto"))
    if not protos:
        raise RuntimeError(f"expected .proto files in {source / PACKAGE}, found none: run this in a whole checkout")
    arguments = [
        "protoc",
        f"--proto_path={source}",
        f"--proto_path={Path(grpc_tools.__file__).parent / '_proto'}",  # google/protobuf/*.proto
        *(f"--plugin={name}={plugin_path(name)}" for name in PLUGINS),
        f"--python_out={destination}",
        f"--grpc_python_out={destination}",
        f"--mypy_out=quiet:{destination}",
        f"--mypy_grpc_out=quiet:{destination}",
        *map(str, protos),
    ]
    status = protoc.main(arguments)
    if status != 0:
        raise RuntimeError(f"expected protoc to exit with 0, was {status}: correct the proto that it names above")


def replace_changed(made: Path, destination: Path) -> None:
    """Makes `destination` hold exactly the files of `made`."""
    destination.mkdir(parents=True, exist_ok=True)
    names = {file.name for file in made.iterdir()}
    for old in destination.iterdir():
        if old.is_file() and old.name not in names:
            old.unlink()
    for file in made.iterdir():
        target = destination / file.name
        if target.exists() and target.read_bytes() == file.read_bytes():
            continue
        aside = target.with_name(f".{target.name}.new")
        aside.write_bytes(file.read_bytes())
        aside.replace(target)


def generate(destination: Path) -> None:
    """Generates the package into `destination`, the directory that is to hold `exchange/`."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        compile_protos(made)
        (made / PACKAGE / "__init__.py").write_text(INIT, encoding="utf-8")
        replace_changed(made / PACKAGE, destination / PACKAGE)


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the Python code of the gRPC API.")
    parser.add_argument(
        "destination",
        nargs="?",
        type=Path,
        default=ROOT,
        help="directory that holds exchange/ (default: the checkout)",
    )
    try:
        generate(parser.parse_args().destination.resolve())
    except (FileNotFoundError, RuntimeError) as error:
        print(f"generate_protos: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
