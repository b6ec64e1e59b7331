"""Prints 1 if C can be compiled against the headers of the Python that runs this, else 0.

The Makefile asks it before anything is installed, so that it needs the standard library alone.
"""

import os
import shlex
import subprocess
import sysconfig


def can_compile() -> bool:
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    folders = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    command = [*compiler, "-fsyntax-only", *(f"-I{folder}" for folder in sorted(folders)), "-x", "c", "-"]
    try:
        return not subprocess.run(command, input=b"#include <Python.h>\n", capture_output=True, check=False).returncode
    except OSError:
        return False


if __name__ == "__main__":
    print(int(can_compile()))
