"""What computes a network: torch or OpenVINO (extra ``openvino``), in float32 or bf16; see :func:`accelerate`.

An engine never changes what a network is, only how its convolutions are computed; the multi-instance stages stay in
torch and float32. Engines exist for M²UNet and its halves; other networks are left as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from m2unet.errors import ConfigError
from m2unet.models.base import LOBES, SEVERITY, SeverityModel, mean_of
from m2unet.models.blocks import ConvNormReLU
from m2unet.models.encoder import Encoder
from m2unet.models.m2unet import M2UNet
from m2unet.models.precision import native_bf16

ENGINES: tuple[str, ...] = ("auto", "reference", "torch", "openvino")
"""``auto``: ``openvino`` on a CPU where it is installed, else ``torch``. ``reference``: torch in float32, as trained.
``torch``: normalisations folded into convolutions, bf16 where the hardware has it. ``openvino``: likewise."""

CHUNK_PIXELS = 1 << 18
"""Pixels of patches encoded at once (16 patches of 128 x 128)."""


class EngineM2UNet(M2UNet):
    """An M²UNet in evaluation mode whose convolutions something else computes. Inference only.

    Patches are encoded a few at a time and only the deepest map is kept, so memory does not grow with the bag.

    Args:
        model: whose multi-instance stages and settings are used.
        deepest: images ``[N, c, H, W]`` to the encoder's deepest map ``[N, d, H/16, W/16]``, and the mean over
            positions of each channel of its other maps ``[N, k]``.
        logits: images to lobe logits ``[N, c, H, W]``.
    """

    def __init__(
        self,
        model: M2UNet,
        deepest: Callable[[Tensor], tuple[Tensor, Tensor]],
        logits: Callable[[Tensor], Tensor] | None,
    ) -> None:
        nn.Module.__init__(self)
        self.config, self.tasks, self.checkpointing = model.config, model.tasks, False
        if SEVERITY in model.tasks:
            self.embedding_mil, self.image_mil, self.classifier = model.embedding_mil, model.image_mil, model.classifier
        self._deepest, self._logits = deepest, logits
        self._plain = (model.encoder,)  # in a tuple: it is no part of what computes
        self.eval()

    def encode(self, images: Tensor) -> list[Tensor]:
        """The deepest map, float32, and before it one map of a single position: the means of all others.

        See :meth:`M2UNet.encode`; whoever takes means over positions, as a signature does, finds the same.
        """
        self.check_images(images)
        step = max(1, CHUNK_PIXELS // (images.shape[2] * images.shape[3]))
        found = [self._deepest(part) for part in images.split(step)]
        means = torch.cat([part.float() for _, part in found])
        return [means[:, :, None, None], torch.cat([part.float() for part, _ in found])]

    def plain_encoder(self) -> Encoder:
        """See :meth:`M2UNet.plain_encoder`: that of the model as it was trained."""
        return self._plain[0]

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Not to be had from the deepest map; use :meth:`segment`."""
        raise NotImplementedError("an engine decodes whole images only, by segment()")

    def segment(self, images: Tensor) -> Tensor:
        """See :meth:`SeverityModel.segment`."""
        self.check_images(images)
        if self._logits is None:
            raise self._without(LOBES)
        return self._logits(images)


def accelerate(model: SeverityModel, engine: str, device: torch.device) -> tuple[SeverityModel, str]:
    """The network as an engine computes it, in evaluation mode on the device.

    Args:
        model: trained; not changed.
        engine: a name of ``ENGINES``.
        device: where to compute; OpenVINO takes the CPU only.

    Returns:
        The network, and what computes it, e.g. ``torch-bf16``.

    Raises:
        ConfigError: no such engine, not installed, or not for this device or network.
    """
    name = _resolve(engine, device)
    model = model.to(device).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not isinstance(model, M2UNet):
        if engine not in ("auto", "reference"):
            raise ConfigError(
                "This engine computes M²UNet and its halves only",
                found=model.config.name,
                mend="use --engine reference",
            )
        return model, "torch-float32"
    if name == "openvino":
        from m2unet.inference.openvino_engine import compile_network

        return compile_network(model)
    if name == "reference":
        return _torch_engine(model, model), "torch-float32"
    return _fast_torch(model, device)


def _resolve(engine: str, device: torch.device) -> str:
    if engine not in ENGINES:
        raise ConfigError("There is no such engine", found=engine, expected=f"one of {', '.join(ENGINES)}")
    installed = find_spec("openvino") is not None
    if engine == "auto":
        return "openvino" if installed and device.type == "cpu" else "torch"
    if engine.startswith("openvino") and not installed:
        raise ConfigError("OpenVINO is not installed", mend="pip install 'm2unet[openvino]', or use --engine torch")
    if engine.startswith("openvino") and device.type != "cpu":
        raise ConfigError("OpenVINO computes on the CPU here", found=device, mend="use --device cpu or --engine torch")
    return engine


def _fast_torch(model: M2UNet, device: torch.device) -> tuple[SeverityModel, str]:
    dtype = torch.bfloat16 if native_bf16(device) else torch.float32
    folded = fold(model)
    folded.encoder.to(dtype)
    if LOBES in folded.tasks:
        folded.decoder.to(dtype)
    return _torch_engine(model, folded), "torch-bf16" if dtype is torch.bfloat16 else "torch-float32-folded"


def _torch_engine(model: M2UNet, computing: M2UNet) -> EngineM2UNet:
    encoder = computing.encoder
    dtype = next(encoder.parameters()).dtype

    def deepest(images: Tensor) -> tuple[Tensor, Tensor]:
        maps = encoder(images.to(dtype, memory_format=torch.channels_last))
        return maps[-1], torch.cat([mean_of(each) for each in maps[:-1]], dim=1)

    def logits(images: Tensor) -> Tensor:
        return computing.decoder(encoder(images.to(dtype, memory_format=torch.channels_last)))

    return EngineM2UNet(model, deepest, logits if LOBES in computing.tasks else None)


class FoldedRise(nn.Module):
    """Nearest-neighbour up-sampling by two and a 3 x 3 convolution as one transposed convolution, then ReLU.

    A pixel of the doubled map is one of the coarse map, so of nine weights those that fall on the same coarse pixel can
    be added beforehand: four products instead of nine, and no doubled map. Exact but for rounding, borders included.

    Args:
        conv: the 3 x 3 convolution with padding 1, its normalisation folded in.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(conv.in_channels, conv.out_channels, kernel_size=4, stride=2, padding=1)
        kernel = torch.zeros_like(self.conv.weight, device=conv.weight.device)
        for dy, dx in product(range(3), repeat=2):
            # Tap dy reads doubled row y + dy - 1, that is coarse row j for y - 2j + 1 = 2 - dy or 3 - dy.
            kernel[:, :, 2 - dy : 4 - dy, 2 - dx : 4 - dx] += conv.weight.detach()[:, :, dy, dx].T[:, :, None, None]
        assert conv.bias is not None
        self.conv.weight = nn.Parameter(kernel.detach(), requires_grad=False)
        self.conv.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, c, H, W]`` to ``[N, d, 2H, 2W]``."""
        return F.relu(self.conv(images), inplace=True)


def fold(model: M2UNet) -> M2UNet:
    """A copy in which normalisations are folded into convolutions, and up-samplings too; exact but for rounding."""
    folded = copy.deepcopy(model)
    for block in folded.modules():
        if isinstance(block, ConvNormReLU):
            block.conv = fuse_conv_bn_eval(block.conv, block.norm)
            block.norm = nn.Identity()  # type: ignore[assignment]
    if LOBES in folded.tasks:
        for decoder in folded.decoder.blocks:
            decoder.rise = FoldedRise(decoder.rise.conv.conv)  # type: ignore[union-attr, arg-type]
    return folded
