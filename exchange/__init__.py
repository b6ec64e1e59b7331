"""Evenkeel, an exchange that stays up through its own restarts.

`exchange.client` is the Python SDK, `exchange.cli` the command line; the rest is the exchange
itself. The package imports nothing, so that a program pays only for the part that it names.
"""

# The build reads the version from here, and so does the running exchange: the installed metadata
# would cost each short-lived process a search of the file system.
__version__ = "0.1.0"
