"""Convolutions by OpenVINO on a CPU: bf16 where the hardware multiplies it, else float32.

OpenVINO reports its import and every ``openvino.convert_model`` to Google Analytics and keeps an identifier in
``~/intel``. Neither happens here: :func:`import_openvino` keeps its telemetry from being loaded, and :func:`convert`
uses the PyTorch frontend that ``convert_model`` wraps, which reports nothing.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from m2unet.inference.engine import EngineM2UNet, fold
from m2unet.models.base import LOBES
from m2unet.models.m2unet import M2UNet


class _Deepest(nn.Module):
    """The encoder's deepest map, and the mean over positions of each channel of its other maps."""

    def __init__(self, model: M2UNet) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.encoder(images)
        return maps[-1], torch.cat([each.mean(dim=(2, 3)) for each in maps[:-1]], dim=1)


class _Logits(nn.Module):
    """Lobe logits."""

    def __init__(self, model: M2UNet) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.decoder = model.decoder

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))


GRAPHS = ("deepest", "logits")
"""What is compiled: the encoder down to its deepest map, and, of a model with lobes, the way to the logits."""


def graph_of(model: M2UNet, name: str) -> Any:
    """One of ``GRAPHS`` of a model in evaluation mode on the CPU, as an OpenVINO model."""
    folded = fold(model)
    module = _Deepest(folded) if name == "deepest" else _Logits(folded)
    return convert(module, model.in_channels)


def graphs_of(model: M2UNet) -> tuple[str, ...]:
    """Which of ``GRAPHS`` a model has."""
    return GRAPHS if LOBES in model.tasks else GRAPHS[:1]


def compile_network(model: M2UNet) -> tuple[EngineM2UNet, str]:
    """Compile encoder and decoder; the multi-instance stages stay in torch.

    Args:
        model: in evaluation mode on the CPU; not changed.

    Returns:
        The network, and ``openvino-bf16`` or ``openvino-float32``.
    """
    network, precision = assemble(model, {name: graph_of(model, name) for name in graphs_of(model)})
    return network, f"openvino-{precision}"


def assemble(model: M2UNet, graphs: Mapping[str, Any]) -> tuple[EngineM2UNet, str]:
    """Compile graphs of a model, and say in which floating-point precision they run."""
    core = import_openvino().Core()
    native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if native else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "CPU_RUNTIME_CACHE_CAPACITY": 32,  # kernels kept; thousands, of every size of region, held 2.4 GB
    }
    run = {name: _runner(core, graph, settings) for name, graph in graphs.items()}
    deepest, logits = run["deepest"], run.get("logits")
    return (
        EngineM2UNet(model, lambda images: _two(deepest(images)), None if logits is None else lambda x: logits(x)[0]),
        "bf16" if native else "float32",
    )


def _two(found: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    return found[0], found[1]


def import_openvino() -> ModuleType:
    """OpenVINO without its telemetry; nothing else in the package may import it.

    The package ``openvino_telemetry`` cannot be imported in this process from then on, whatever a consent file in the
    user's home says, and OpenVINO takes its own stand-in, which does nothing. Where other code has imported OpenVINO
    before, its telemetry is loaded already and stays; what is used of OpenVINO here never calls it.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino


def convert(module: nn.Module, channels: int) -> Any:
    """A module of images ``[N, channels, H, W]`` as an OpenVINO model of any N, H and W."""
    openvino = import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # tracing warns of checks that hold
        traced = TorchScriptPythonDecoder(module.eval(), example_input=torch.zeros(1, channels, 64, 64))
        frontend = FrontEndManager().load_by_framework("pytorch")
        graph = frontend.load(traced)
        graph.set_partial_shape(graph.get_place_by_input_index(0), openvino.PartialShape([-1, channels, -1, -1]))
        return frontend.convert(graph)


def _runner(core: Any, graph: Any, settings: dict[str, Any]) -> Callable[[Tensor], tuple[Tensor, ...]]:
    compiled = core.compile_model(graph, "CPU", settings)

    def run(images: Tensor) -> tuple[Tensor, ...]:
        found = compiled(images.contiguous().numpy(), share_inputs=True)
        return tuple(torch.from_numpy(found[number]) for number in range(len(compiled.outputs)))

    return run
