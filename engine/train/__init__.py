import os

from engine.execution.compiler import inductor_cache_dir

# Here because torch settles on a folder while it is imported, which every way into this package does later.
if folder := inductor_cache_dir():
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
