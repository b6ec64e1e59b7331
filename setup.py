"""Adds two steps to the build: the gRPC code is generated from `protos/`, and with `EVENKEEL_COMPILE=1` the modules in
`tools/compiled_modules.txt` are compiled with mypyc. Without it a build needs no compiler, as for the SDK.

Everything else is in `pyproject.toml`.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

GENERATOR = "tools/generate_protos.py"
COMPILES = os.environ.get("EVENKEEL_COMPILE") == "1"
COMPILED_MODULES = "tools/compiled_modules.txt"
COMPILED_GROUP = "exchange.compiled"


class BuildProtos(Command):
    """Generates `exchange/v1` into the wheel, or for an editable install into the checkout.

    `setuptools.command.build.SubCommand` says what each attribute and method is for.
    """

    description = "generate the Python code of the gRPC API"
    user_options: ClassVar[list[tuple[str, str, str]]] = []
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        destinations = [] if self.editable_mode else [str(self.build_lib)]
        if self.editable_mode or COMPILES:  # mypyc looks for types in the checkout
            destinations.append(".")
        for destination in destinations:
            subprocess.run([sys.executable, GENERATOR, destination], check=True)

    def get_source_files(self) -> list[str]:
        return [GENERATOR, *(proto.as_posix() for proto in sorted(Path("protos").rglob("*.proto")))]

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class BuildCompiled(build_ext):
    """Compiles into the wheel, or for an editable install into the checkout, and writes down from which sources.

    `exchange/compiled.py` compares the sources with that, so that no edit goes unheard.
    """

    def run(self) -> None:
        # Only here, as the other commands of a build make this one too, to ask what it would build.
        from mypyc.build import mypycify

        modules = Path(COMPILED_MODULES).read_text("ascii").split()
        # Before they are read to be compiled: what changes meanwhile is then known as changed.
        digests = {module: hashlib.sha256(Path(module).read_bytes()).hexdigest() for module in modules}
        # In one group, within which calls are calls of C. -O3 and debug symbols take half as long again, for nothing.
        self.distribution.ext_modules = mypycify(  # type: ignore[assignment]  # setuptools' own, whose types differ
            modules, group_name=COMPILED_GROUP, opt_level="2", debug_level="0", target_dir="build/compiled"
        )
        # The options follow from the modules, and had only the name of one yet.
        inplace = self.inplace
        self.initialize_options()
        self.inplace = inplace
        self.finalize_options()
        record = Path("." if self.inplace else self.build_lib, "exchange/compiled.json")
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(digests, indent=2), "ascii")
        super().run()


class Build(build):
    sub_commands: ClassVar = [("build_protos", None), *build.sub_commands]


setup(
    cmdclass={"build": Build, "build_protos": BuildProtos, "build_ext": BuildCompiled},
    # The name alone, so that the build knows that there will be such modules. None, none are built.
    ext_modules=[Extension(f"{COMPILED_GROUP}__mypyc", [])] if COMPILES else [],
    setup_requires=["mypy>=2.4"] if COMPILES else [],
)
