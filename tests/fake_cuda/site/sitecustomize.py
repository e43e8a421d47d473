"""With this folder on PYTHONPATH every Python process has the fake card, as soon as it imports torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from tests.fake_cuda import driver


class TorchFinder(MetaPathFinder):
    """Loads the device before torch, which looks for devices once, and what is left of it after torch."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        spec = PathFinder.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_with_device(module: ModuleType) -> None:
            sys.meta_path.remove(self)  # not before: find_spec also only asks whether torch is there
            from tests.fake_cuda import device

            load(module)
            device.install()

        spec.loader.exec_module = load_with_device  # type: ignore[method-assign]
        return spec


driver.install()
sys.meta_path.insert(0, TorchFinder())
