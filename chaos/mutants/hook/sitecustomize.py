"""Python runs this when it starts, in processes that have this directory on PYTHONPATH: it plants the bug they name."""

import os

if os.environ.get("CHAOS_MUTANT"):
    from chaos.mutants.planting import plant

    plant(os.environ["CHAOS_MUTANT"])
