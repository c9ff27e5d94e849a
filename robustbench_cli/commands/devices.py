"""The device that a run works on, what it computes in there, and what the record says of it."""

import os
import platform
from pathlib import Path
from typing import Any

import torch

from robustbench_cli.config.schema import TrainPrecision
from robustbench_cli.core.errors import UserError
from robustbench_cli.distributed import env
from robustbench_cli.models import has_bf16
from robustbench_cli.runs import environment


def resolve_device(name: str) -> torch.device:
    """Return the device that ``--device`` names; ``auto`` is CUDA where there is one, else the CPU.

    Raises:
        UserError: the name is unknown, or there is no such device.
    """
    usual = {"auto": "cuda" if torch.cuda.is_available() else "cpu"}
    try:
        found = torch.device(usual.get(name, name))
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; use cpu, cuda, cuda:1 or auto") from None
    if found.type == "cuda" and not (found.index or 0) < torch.cuda.device_count():
        raise UserError(
            f"no CUDA device {name!r} (torch {torch.__version__} sees "
            f"{torch.cuda.device_count()}); use --device cpu"
        )
    gone = found.type == "mps" and not torch.backends.mps.is_available()
    if gone or found.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device {name!r} is not supported; use cpu, cuda or auto")
    return found


def use_deterministic_algorithms(wanted: bool) -> None:
    """Restrict torch to algorithms that give the same result every time, or lift that again.

    Call it before CUDA starts: cuBLAS reads its setting only then.
    """
    if wanted:
        # Without this setting torch refuses matrix products on a GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)


def resolve_precision(requested: TrainPrecision, where: torch.device) -> TrainPrecision:
    """Return the number format to train in; ``auto`` is bf16 on hardware that is made for it."""
    by_hardware: TrainPrecision = "bf16" if has_bf16(where) else "float32"
    return by_hardware if requested == "auto" else requested


def run_environment(where: torch.device) -> dict[str, Any]:
    """Return the software and the hardware of this process, as a record keeps them."""
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else _processor()
    return environment.describe(
        device=str(where),
        device_name=name,
        threads=torch.get_num_threads(),
        processes=env.world(),
    )


def _processor() -> str:
    """Return the name of the processor, which Linux keeps out of the platform module's reach."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
