"""The driver of the fake card: what NVML reports, and what the installed torch says that it is built for."""

from __future__ import annotations

import os

NAME, UUID = "Fake GeForce RTX 5080", "GPU-fake0000-0000-0000-0000-000000000000"
TOTAL = int(os.environ.get("FAKE_CUDA_MIB", 16 << 10)) << 20  # bytes
CAPABILITY = divmod(int(os.environ.get("FAKE_CUDA_SM", 120)), 10)


def install() -> None:
    """Make NVML report the card, and a torch that is built for it."""
    import pynvml

    from engine.execution import dependencies
    from tests.unit import fake_nvml

    described = fake_nvml.Card(UUID, NAME, TOTAL, TOTAL, CAPABILITY)
    driver = {**fake_nvml.answers([described]), "nvmlSystemGetCudaDriverVersion": lambda: 13000}
    built = {"torch_cuda_version": lambda: (13, 0), "torch_architectures": lambda: ("sm_{}{}".format(*CAPABILITY),)}
    for module, answers in ((pynvml, driver), (dependencies, built)):
        for name, answer in answers.items():
            setattr(module, name, answer)
