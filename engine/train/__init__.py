import os

from engine.execution.compiler import cache_folder

# Here because torch settles on a folder while it is imported, which every way into this package does later.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder()))
