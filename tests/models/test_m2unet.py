"""M²UNet: Table I's counts, a plain reference forward pass, and what it promises of masks, decoder and memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2unet.config import ModelConfig
from m2unet.errors import ModelError
from m2unet.models.batch import Batch, ModelOutput
from m2unet.models.m2unet import M2UNet
from tests.models.samples import PATCH, make_batch, small_config, small_model, warm

BATCH = make_batch([3, 1, 2])
ALL = torch.tensor([True, True, True])


def network(name: str = "m2unet", **changes: object) -> M2UNet:
    model = small_model(name, **changes)
    assert isinstance(model, M2UNet)
    return model


def number(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_block_of_table_one() -> None:
    model = M2UNet(ModelConfig())
    assert [number(block) for block in model.encoder.blocks] == [37_824, 74_112, 74_112, 74_112, 2_657_280]
    assert number(model.embedding_mil) == 197_376
    assert number(model.image_mil) == 49_536
    assert number(model.classifier) == 258
    assert [number(block) for block in model.decoder.blocks] == [406_080, 148_032, 148_032, 148_032]
    assert number(model.decoder.head) == 455
    assert number(model) == 4_015_241


@pytest.mark.parametrize(("norm", "embedding", "image"), [("bias", 197_120, 49_408), ("none", 196_864, 49_280)])
def test_counts_of_other_normalisations(norm: str, embedding: int, image: int) -> None:
    model = M2UNet(ModelConfig.model_validate({"pooling_norm": norm}))
    assert (number(model.embedding_mil), number(model.image_mil)) == (embedding, image)


# A forward pass written from Table I with torch's own operations, on the same weights.


def _cbr(state: dict[str, Tensor], name: str, images: Tensor) -> Tensor:
    convolved = F.conv2d(images, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], padding=1)
    mean, variance, weight, bias = (
        state[f"{name}.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return F.relu(F.batch_norm(convolved, mean, variance, weight, bias))


def _gcp(state: dict[str, Tensor], name: str, instances: Tensor) -> Tensor:
    cosine = F.cosine_similarity(instances.unsqueeze(1), state[f"{name}.pooling.concepts"].unsqueeze(0), dim=-1)
    parts = (state[f"{name}.pooling.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    pooled = F.batch_norm(cosine, *parts).amax(dim=0)
    return F.linear(pooled, state[f"{name}.project.weight"], state[f"{name}.project.bias"])


def _reference(model: M2UNet, images: Tensor) -> tuple[Tensor, Tensor]:
    state = model.state_dict()
    maps, current = [], images
    for level in range(5):
        current = F.max_pool2d(current, 2) if level else current
        for part in ("first", "second"):
            current = _cbr(state, f"encoder.blocks.{level}.{part}", current)
        maps.append(current)
    patches = torch.stack([_gcp(state, "embedding_mil", each.flatten(1).T) for each in maps[4]])
    severity = F.linear(_gcp(state, "image_mil", patches), state["classifier.weight"], state["classifier.bias"])
    for level in range(4):
        current = current.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        current = _cbr(state, f"decoder.blocks.{level}.rise.conv", current)
        current = _cbr(state, f"decoder.blocks.{level}.join", torch.cat([current, maps[3 - level]], dim=1))
        current = _cbr(state, f"decoder.blocks.{level}.last", current)
    return severity, F.conv2d(current, state["decoder.head.weight"], state["decoder.head.bias"])


def test_forward_is_table_one() -> None:
    model = network()
    warm(model)
    batch = make_batch([3])
    output = model(batch, torch.tensor([True]))
    severity, lobes = _reference(model, batch.patches[0])
    torch.testing.assert_close(output.severity, severity.unsqueeze(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.lobes, lobes, atol=1e-5, rtol=1e-5)


def test_shapes_of_everything() -> None:
    output = network()(BATCH, torch.tensor([True, False, True]))
    assert output.severity.shape == (3, 2)
    assert output.lobes.shape == (5, 7, PATCH, PATCH)
    assert output.lobe_bags.tolist() == [True, False, True]
    assert output.embedding.shape == (3, 5)
    assert output.image_winners.shape == (3, 5)
    assert output.position_winners.shape == (3, 3, 7)
    assert bool(((output.position_winners == -1).all(-1) == ~BATCH.mask).all())
    assert bool((output.position_winners[BATCH.mask] >= 0).all())
    assert int(output.position_winners.max()) < (PATCH // 16) ** 2
    assert all(int(output.image_winners[bag].max()) < count for bag, count in enumerate([3, 1, 2]))


@contextmanager
def counting(module: nn.Module) -> Iterator[list[int]]:
    calls: list[int] = []
    hook = module.register_forward_hook(lambda _module, inputs, _output: calls.append(len(inputs[0])))
    try:
        yield calls
    finally:
        hook.remove()


@pytest.mark.parametrize("lobes_for", [None, torch.zeros(3, dtype=torch.bool)])
def test_decoder_is_skipped_unless_asked_for(lobes_for: Tensor | None) -> None:
    model = network()
    with counting(model.decoder.blocks[0].rise) as calls:
        output = model(BATCH, lobes_for)
        assert calls == []
        assert output.lobes is None and output.lobe_bags is None
        model(BATCH, torch.tensor([False, True, True]))
        assert calls == [3]


def test_encoder_sees_real_instances_only() -> None:
    model = network()
    with counting(model.encoder.blocks[0].first.conv) as calls:
        model(BATCH)
    assert calls == [6]


def test_lobes_of_some_bags_are_those_of_all() -> None:
    model = warm(network())
    every = model(BATCH, ALL).lobes
    some = model(BATCH, torch.tensor([True, False, True])).lobes
    torch.testing.assert_close(some, torch.cat([every[:3], every[4:]]))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["batch", "bias", "none"])
def test_padding_changes_nothing(training: bool, norm: str) -> None:
    results = []
    for length in (3, 6):
        model = network(pooling_norm=norm).train(training)
        output = model(make_batch([3, 1, 2], length=length), ALL)
        (output.severity.square().sum() + output.lobes.square().mean()).backward()
        results.append((output, [p.grad for p in model.parameters()], model.state_dict()))
    (plain, gradients, state), (padded, padded_gradients, padded_state) = results
    assert torch.equal(plain.severity, padded.severity)
    assert torch.equal(plain.lobes, padded.lobes)
    assert torch.equal(plain.image_winners, padded.image_winners)
    assert torch.equal(plain.position_winners, padded.position_winners[:, :3])
    for one, two in zip(gradients, padded_gradients, strict=True):
        assert one is not None and two is not None
        torch.testing.assert_close(one, two)
    assert all(torch.equal(state[key], padded_state[key]) for key in state)


def _step(model: M2UNet, batch: Batch) -> tuple[ModelOutput, dict[str, Tensor | None], dict[str, Tensor]]:
    output = model(batch, torch.tensor([True, False, True]))
    (output.severity.square().sum() + output.lobes.square().mean()).backward()
    return output, {n: p.grad for n, p in model.named_parameters()}, model.state_dict()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_checkpointing_is_exact(momentum: float | None) -> None:
    kept, recomputed = network(), network()
    recomputed.checkpointing = True
    for model in (kept, recomputed):
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = momentum
    with (
        counting(kept.encoder.blocks[0].first.conv) as once,
        counting(recomputed.encoder.blocks[0].first.conv) as twice,
    ):
        plain, gradients, state = _step(kept, BATCH)
        output, other_gradients, other_state = _step(recomputed, BATCH)
    assert (len(once), len(twice)) == (1, 2)
    assert torch.equal(plain.severity, output.severity)
    assert torch.equal(plain.lobes, output.lobes)
    for name, gradient in gradients.items():
        assert gradient is not None
        torch.testing.assert_close(other_gradients[name], gradient, atol=0, rtol=0)
    assert all(torch.equal(other_state[key], value) for key, value in state.items())
    assert int(state["encoder.blocks.0.first.norm.num_batches_tracked"]) == 1


def test_bag_of_one_patch_trains() -> None:
    model = network().train()
    output = model(make_batch([1]), torch.tensor([True]))
    (output.severity.sum() + output.lobes.sum()).backward()
    assert output.image_winners.tolist() == [[0] * 5]
    for tensor in (output.severity, output.lobes, *(p.grad for p in model.parameters()), *model.state_dict().values()):
        assert bool(torch.isfinite(tensor).all())


@pytest.mark.parametrize("config", [{}, {"similarity": "dot"}, {"pooling_norm": "bias"}, {"activation": True}])
def test_winners_alone_decide(config: dict[str, object]) -> None:
    model = warm(network(**config))
    batch = make_batch([6, 4])
    output = model(batch)
    maps = model.encode(batch.inputs(position=False))[-1].flatten(2).transpose(1, 2)
    patches = torch.zeros(2, 6, maps.shape[1], maps.shape[2])
    patches[batch.mask] = maps
    for bag in range(2):
        vectors = []
        for patch in output.image_winners[bag].unique().tolist():
            positions = output.position_winners[bag, patch].unique()
            vectors.append(model.embedding_mil(patches[bag, patch, positions].unsqueeze(0)).values)
        again = model.classify(torch.cat(vectors).unsqueeze(0))
        torch.testing.assert_close(again.severity[0], output.severity[bag], atol=1e-6, rtol=1e-5)
    assert len(output.image_winners[0].unique()) < 6  # so that something was left out


def test_embed_and_classify_are_the_forward_pass() -> None:
    model = warm(network())
    embeddings = torch.zeros(3, 3, 7)
    embeddings[BATCH.mask] = model.embed(BATCH.inputs(position=False))
    output, whole = model.classify(embeddings, BATCH.mask), model(BATCH)
    torch.testing.assert_close(output.severity, whole.severity)
    assert torch.equal(output.image_winners, whole.image_winners)


def test_activation_is_a_relu_after_the_linear_maps() -> None:
    plain, active = warm(network()), warm(network(activation=True))
    images = BATCH.inputs(position=False)
    expected = F.relu(plain.embed(images))
    assert bool((expected == 0).any()) and bool((expected > 0).any())
    assert torch.equal(active.embed(images), expected)
    assert bool((active(BATCH).embedding >= 0).all())


@pytest.mark.parametrize("size", [(16, 16), (48, 80)])
def test_segments_any_size_divisible_by_sixteen(size: tuple[int, int]) -> None:
    assert warm(network()).segment(torch.rand(2, 1, *size)).shape == (2, 7, *size)


def test_segment_agrees_with_forward() -> None:
    model = warm(network())
    torch.testing.assert_close(model.segment(BATCH.inputs(position=False)), model(BATCH, ALL).lobes)


@pytest.mark.parametrize(("shape", "words"), [((1, 1, 40, 32), "48 x 32"), ((1, 2, 32, 32), "channels")])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], words: str) -> None:
    for call in (network().segment, network().embed):
        with pytest.raises(ModelError, match=words):
            call(torch.zeros(shape))


def test_position_enters_as_three_channels() -> None:
    model = warm(network(position=True))
    assert model.in_channels == 4
    batch = make_batch([2, 1], position=True)
    before = model(batch, torch.tensor([True, True]))
    moved = replace(batch, position=batch.position + 0.5 if batch.position is not None else None)
    assert not torch.equal(before.lobes, model(moved, torch.tensor([True, True])).lobes)
    with pytest.raises(ValueError, match="position"):
        model(BATCH)


def test_halves_have_their_tasks_only() -> None:
    severity, lobes = network("cls_only"), network("seg_only")
    assert severity.tasks == {"severity"} and lobes.tasks == {"lobes"}
    assert severity(BATCH, ALL).lobes is None and severity(BATCH).severity.shape == (3, 2)
    assert lobes(BATCH).severity is None and lobes(BATCH, ALL).lobes.shape == (6, 7, PATCH, PATCH)
    with pytest.raises(ModelError, match="no lobes"):
        severity.segment(torch.zeros(1, 1, 32, 32))
    for call in (lambda: lobes.embed(torch.zeros(1, 1, 32, 32)), lambda: lobes.classify(torch.zeros(1, 1, 7))):
        with pytest.raises(ModelError, match="no severity"):
            call()


@pytest.mark.parametrize("tasks", [frozenset(), frozenset({"age"})])
def test_unknown_tasks_are_refused(tasks: frozenset[str]) -> None:
    with pytest.raises(ValueError, match="tasks"):
        M2UNet(small_config(), tasks)


def test_empty_bag_is_named() -> None:
    mask = BATCH.mask.clone()
    mask[1] = False
    with pytest.raises(ValueError, match=r"\[1\]"):
        network()(replace(BATCH, mask=mask))


def test_lobes_for_must_be_one_answer_a_bag() -> None:
    with pytest.raises(ValueError, match="lobes_for"):
        network()(BATCH, torch.tensor([True]))


def test_anchor_is_zero_and_reaches_every_parameter() -> None:
    model = network()
    zero = model.anchor()
    (model(BATCH).severity.sum() + zero).backward()
    assert float(zero.detach()) == 0.0
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not bool(model.decoder.head.weight.grad.any())


def test_channels_last_is_the_same_network() -> None:
    plain, last = network().train(), network().train().to(memory_format=torch.channels_last)
    one, two = plain(BATCH, ALL), last(BATCH, ALL)
    torch.testing.assert_close(one.severity, two.severity, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.lobes, two.lobes, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_bfloat16_autocast(checkpointing: bool) -> None:
    model, exact = network().train(), network().train()
    model.checkpointing = checkpointing
    with torch.autocast("cpu", torch.bfloat16):
        output = model(BATCH, ALL)
    assert output.severity.dtype == torch.float32 and output.embedding.dtype == torch.float32
    expected = exact(BATCH, ALL).lobes
    assert float((output.lobes.float() - expected).detach().abs().mean()) < 0.05 * float(expected.detach().std())
    (output.severity.sum() + output.lobes.float().sum()).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_full_size_step_within_eight_gigabytes() -> None:
    """One bag of 200 patches of 128 x 128, severity and lobes, forward and backward, in a process of its own."""
    code = (
        "import resource, torch\n"
        "from m2unet.config import ModelConfig\n"
        "from m2unet.models.batch import Batch\n"
        "from m2unet.models.registry import build_model\n"
        "model = build_model(ModelConfig()).train(); model.checkpointing = True\n"
        "one = torch.tensor([True])\n"
        "batch = Batch(torch.rand(1, 200, 1, 128, 128), one.expand(1, 200), None, torch.tensor([1]), None, one)\n"
        "output = model(batch, one)\n"
        "target = torch.randint(0, 7, (200, 128, 128))\n"
        "loss = torch.nn.functional.cross_entropy(output.lobes, target) + output.severity.square().sum()\n"
        "del output\n"
        "loss.backward()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 8e9
