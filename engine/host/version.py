"""The version of this package, as recorded in the run state, the server's hello and checkpoints.

``pyproject.toml`` reads it from here: the metadata of an installed package would cost every process 2 MB to look up.
"""

VERSION = "0.2.0.dev0"
