"""Adds one step to the build: the gRPC code is generated from `protos/`.

Everything else is in `pyproject.toml`.
"""

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from setuptools import Command, setup
from setuptools.command.build import build

GENERATOR = "tools/generate_protos.py"


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
        destination = "." if self.editable_mode else str(self.build_lib)
        subprocess.run([sys.executable, GENERATOR, destination], check=True)

    def get_source_files(self) -> list[str]:
        return [GENERATOR, *(proto.as_posix() for proto in sorted(Path("protos").rglob("*.proto")))]

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class Build(build):
    sub_commands: ClassVar = [("build_protos", None), *build.sub_commands]


setup(cmdclass={"build": Build, "build_protos": BuildProtos})
