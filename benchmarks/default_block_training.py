"""Training for `default_block.py`: a frozen trunk, features made once, and blocks and their controls after it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from default_block_data import Sample, Split, View, render
from torch import Tensor, nn

from nonlocal_video.benchmark.principal import set_principal
from nonlocal_video.blocks import NonLocalConfig, VideoNonLocalBlock
from nonlocal_video.blocks.nonlocal_block import KernelVariant, Rows
from nonlocal_video.models.folding import fold_batch_norms
from nonlocal_video.models.inception3d import INCEPTION_WIDTHS, InceptionI3D

EVALUATED_VIEWS = 4  # the first so many of a sample's views are what it is validated and tested on
NUM_WARMUP_STEPS = 20
EVALUATION_BATCH = 64
NUM_INITIAL_VIEWS = 256  # for the principal directions
TRUNK_BATCH = 16
INPUT_CHANNELS = 8
START = "Mixed_4f"  # the endpoint up to which features are made once
STILLS_SHARE = 0.33  # of a batch


@dataclass(frozen=True)
class Configuration:
    """A block, and how it learns."""

    recipe: str
    """Recipe for the student's views: a name in `RECIPES` of `default_block.py`."""
    place: str = START
    """Endpoint that the block follows; `START` or a later one."""
    block: NonLocalConfig = field(
        default_factory=lambda: NonLocalConfig(
            inter_channels=128, sub_sample=False, bn_layer=False, scale=0.5 * 128**-0.5
        )
    )
    principal: bool = True
    """Theta, phi and g begin as the features' principal directions, as in the default; else small and random."""
    learning_rates: tuple[float, ...] = (3e-4, 1e-3)
    """Peaks; validation takes the better one, for each variant by itself."""
    weight_decay: float = 0.01
    dropout: float = 0.0
    """Probability with which a channel of what the block adds is dropped."""
    num_steps: int = 300
    batch_size: int = 64
    evaluate_every: int = 25


# Controls: the same block, with something else in place of attention.


@dataclass(frozen=True)
class SelfOnly:
    """y_i = g(x_i): a plain 1x1x1 residual."""

    def kernel(self, rows: Rows, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return g

    def rows(self, rows: Rows, theta: Tensor, phi: Tensor) -> Tensor:
        return torch.eye(phi.shape[1], dtype=theta.dtype, device=theta.device).expand(len(theta), -1, -1)


@dataclass(frozen=True)
class MeanOfAll:
    """y_i = 1/N sum_j g(x_j): every position gets the same, whatever it and they hold."""

    def kernel(self, rows: Rows, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return g.mean(dim=1, keepdim=True).expand(-1, theta.shape[1], -1)

    def rows(self, rows: Rows, theta: Tensor, phi: Tensor) -> Tensor:
        return theta.new_full((len(theta), theta.shape[1], phi.shape[1]), 1 / phi.shape[1])


NONE = "none"  # no block at all: what is not trained
TEMPERATURE = "temperature"  # no block, but logits divided by what is best on validation clips
VARIANTS: dict[str, KernelVariant | None] = {
    "block": None,
    "self": SelfOnly(),
    "mean": MeanOfAll(),
}


# The trunk, frozen.


class Trunk:
    """The default network without its block, batch norms folded, in two parts at any endpoint.

    The first part, which needs no gradients, is done in float16 on a GPU; its features and logits keep 11 bits.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        assert isinstance(network, InceptionI3D)
        exact = fold_batch_norms(network.eval()).requires_grad_(False)
        assert isinstance(exact, InceptionI3D)
        self.device = device
        self.on_gpu = device.type == "cuda"
        self.exact = exact.to(device, memory_format=torch.channels_last_3d if self.on_gpu else torch.contiguous_format)
        self.fast = self.exact
        if self.on_gpu:
            self.fast = copy.deepcopy(self.exact).half()
            widen_input(self.fast.get_submodule("Conv3d_1a_7x7.conv"), INPUT_CHANNELS)
        self.endpoints = [name for name in exact.layer_names if not name.startswith("nonlocal_")]
        self.channels = {name: w[0] + w[2] + w[4] + w[5] for name, w in INCEPTION_WIDTHS.items()}

    @torch.inference_mode()
    def features(self, clips: Tensor, endpoint: str) -> Tensor:
        """(B, 3, T, H, W) -> (B, C, T', H', W')."""
        return self._run(clips, self.endpoints[: self.endpoints.index(endpoint) + 1])

    @torch.inference_mode()
    def probabilities(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, classes), float32."""
        features = self._run(clips, self.endpoints)
        return self.fast.head(features).float().softmax(dim=1)

    def _run(self, clips: Tensor, endpoints: Sequence[str]) -> Tensor:
        if not self.on_gpu:
            return self._through(clips, endpoints)
        # Always the same size of batch, and channels that tensor cores take: 3 of RGB and 5 of zeros.
        missing = TRUNK_BATCH - len(clips)
        padded = F.pad(clips.half(), (0, 0, 0, 0, 0, 0, 0, INPUT_CHANNELS - clips.shape[1], 0, missing))
        return self._through(padded.contiguous(memory_format=torch.channels_last_3d), endpoints)[: len(clips)]

    def _through(self, x: Tensor, endpoints: Sequence[str]) -> Tensor:
        for name in endpoints:
            x = self.fast.get_submodule(name)(x)
        return x


def widen_input(conv: nn.Module, channels: int) -> None:
    """Let a convolution take so many channels, of which it ignores those that it did not have."""
    assert isinstance(conv, nn.Conv3d)
    weight = F.pad(conv.weight, (0, 0, 0, 0, 0, 0, 0, channels - conv.in_channels))
    conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last_3d), requires_grad=False)
    conv.in_channels = channels


class Tail(nn.Module):
    """Layers after `START`, with a block or none: features (B, C, T, H, W) -> logits (B, classes), float32."""

    def __init__(self, trunk: Trunk, blocks: nn.ModuleDict, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = blocks
        self.dropout = dropout
        self.temperature = 1.0
        self._trunk = [trunk.exact]  # in a list: not a submodule, so neither trained nor saved
        self.endpoints = trunk.endpoints[trunk.endpoints.index(START) :]

    def forward(self, x: Tensor) -> Tensor:
        network = self._trunk[0]
        for name in self.endpoints:
            if name != self.endpoints[0]:
                x = network.get_submodule(name)(x)
            if name in self.blocks:
                z = self.blocks[name](x)
                x = x + F.dropout3d(z - x, self.dropout) if self.dropout and self.training else z
        logits: Tensor = network.head(x)
        return logits / self.temperature


# Targets and features.


def make_targets(trunk: Trunk, samples: Sequence[Sample], views: Sequence[Sequence[View]]) -> Tensor:
    """(N, classes): mean probabilities over each sample's views."""
    sums: Tensor | None = None
    for owners, clips in _rendered(trunk, samples, views):
        probabilities = trunk.probabilities(clips)
        if sums is None:
            sums = torch.zeros(len(samples), probabilities.shape[1], device=probabilities.device)
        sums.index_add_(0, torch.tensor(owners, device=sums.device), probabilities)
    assert sums is not None
    targets = sums / torch.tensor([len(of_sample) for of_sample in views], device=sums.device)[:, None]
    if not targets.isfinite().all():
        raise FloatingPointError("The trunk's answers are not all finite.")
    return targets


@dataclass(frozen=True)
class Bank:
    """Features of many views, made once."""

    name: str
    features: Tensor
    """(M, C, T, H, W), float16; the views of a sample stand together."""
    firsts: np.ndarray
    """(N,) where each sample's views begin."""
    counts: np.ndarray
    """(N,) how many there are."""

    def evaluated(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the evaluated views of some samples, and whose they are, both (M,)."""
        counts = np.minimum(self.counts[samples], EVALUATED_VIEWS)
        rows = [np.arange(first, first + count) for first, count in zip(self.firsts[samples], counts, strict=True)]
        return np.concatenate([np.empty(0, dtype=int), *rows]), np.repeat(samples, counts)


def make_bank(name: str, trunk: Trunk, samples: Sequence[Sample], views: Sequence[Sequence[View]]) -> Bank:
    """The trunk's features at `START` of the given views of each sample."""
    counts = np.array([len(of_sample) for of_sample in views])
    stored: Tensor | None = None
    place = 0
    for owners, clips in _rendered(trunk, samples, views):
        features = trunk.features(clips, START)
        if not features.isfinite().all():
            raise FloatingPointError(f"The features at {START} are not all finite.")
        if stored is None:
            stored = torch.empty((int(counts.sum()), *features.shape[1:]), dtype=torch.float16, device=features.device)
        stored[place : place + len(owners)] = features
        place += len(owners)
    assert stored is not None
    return Bank(name, stored, counts.cumsum() - counts, counts)


def _rendered(
    trunk: Trunk, samples: Sequence[Sample], views: Sequence[Sequence[View]]
) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of views, (B, 3, T, H, W), and whose they are."""
    flat = [(index, view) for index, of_sample in enumerate(views) for view in of_sample]
    size = TRUNK_BATCH if trunk.on_gpu else 4
    for start in range(0, len(flat), size):
        part = flat[start : start + size]
        yield [index for index, _ in part], torch.stack([render(samples, index, view) for index, view in part])


# Blocks.


def make_blocks(configuration: Configuration, trunk: Trunk, features: Tensor, seed: int) -> nn.ModuleDict:
    """One new block, the identity, by the endpoint that it follows.

    Args:
        configuration: What the block is.
        trunk: What it stands in.
        features: (M, C, T, H, W) training features at `START`, for the principal directions.
        seed: Of the random numbers.
    """
    place = configuration.place
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        block = VideoNonLocalBlock.from_config(trunk.channels[place], configuration.block)
    if configuration.principal:
        first, last = (trunk.endpoints.index(name) + 1 for name in (START, place))
        set_principal(block, _cells(trunk, features, trunk.endpoints[first:last]))
    return nn.ModuleDict({place: block}).to(trunk.device)


def as_variant(blocks: nn.ModuleDict, variant: str) -> nn.ModuleDict:
    """A copy with the same numbers that computes as a variant does."""
    copied = copy.deepcopy(blocks)
    for block in copied.values():
        assert isinstance(block, VideoNonLocalBlock)
        block.variant = VARIANTS[variant]
    return copied


def initial_blocks(configuration: Configuration, trunk: Trunk, bank: Bank, split: Split, seed: int) -> nn.ModuleDict:
    """`make_blocks` from views of the split's training samples."""
    drawn = np.random.default_rng([3, seed]).permutation(split.train)[:NUM_INITIAL_VIEWS]
    return make_blocks(configuration, trunk, bank.features[torch.from_numpy(bank.firsts[drawn]).to(trunk.device)], seed)


@torch.inference_mode()
def _cells(trunk: Trunk, features: Tensor, endpoints: Sequence[str]) -> Tensor:
    """Features after some more endpoints, (cells, C)."""
    cells = []
    for part in features.split(EVALUATION_BATCH):
        x = part.float()
        for name in endpoints:
            x = trunk.exact.get_submodule(name)(x)
        cells.append(x.transpose(0, 1).flatten(1).T)
    return torch.cat(cells)


# Training.


@dataclass
class Trained:
    """Results of one run."""

    validation: float
    """Mean KL of the validation clips at the best step."""
    step: int
    """0 if no step was better than no block."""


def train(
    configuration: Configuration,
    blocks: nn.ModuleDict,
    learning_rate: float,
    trunk: Trunk,
    bank: Bank,
    targets: Tensor,
    split: Split,
    is_still: np.ndarray,
    seed: int,
) -> Trained:
    """Train blocks in place. In the end they have the numbers of the step that was best on the validation clips.

    Args:
        configuration: How to train.
        blocks: New ones, of any variant.
        learning_rate: One of the configuration's.
        trunk: What the blocks stand in.
        bank: Features of the student's views of all samples.
        targets: (N, classes) probabilities.
        split: Which samples may be used for what.
        is_still: (N,) booleans.
        seed: Of the order of the views, which is the same for every variant and rate.
    """
    rng = np.random.default_rng([2, seed])
    clips, stills = (split.train[is_still[split.train] == kind] for kind in (False, True))
    num_stills = round(configuration.batch_size * STILLS_SHARE) if len(stills) else 0
    num_clips = configuration.batch_size - num_stills
    tail = Tail(trunk, blocks, configuration.dropout)
    optimizer = torch.optim.AdamW(blocks.parameters(), lr=learning_rate, weight_decay=configuration.weight_decay)
    steps = configuration.num_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / NUM_WARMUP_STEPS, 1) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    validation = split.validation[~is_still[split.validation]]
    best = Trained(_mean_kl(tail, bank, targets, validation), 0)
    state = _copied(blocks)
    torch.manual_seed(seed)  # for dropout
    for step in range(1, steps + 1):
        drawn = np.concatenate(
            [rng.choice(clips, num_clips), rng.choice(stills, num_stills) if num_stills else clips[:0]]
        )
        rows = bank.firsts[drawn] + rng.integers(bank.counts[drawn])
        tail.train()
        logits = tail(bank.features[torch.from_numpy(rows).to(trunk.device)].float())
        loss = divergences(targets[torch.from_numpy(drawn).to(trunk.device)], logits).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % configuration.evaluate_every == 0 or step == steps:
            reached = _mean_kl(tail, bank, targets, validation)
            if reached < best.validation:
                best, state = Trained(reached, step), _copied(blocks)
    blocks.load_state_dict(state)
    return best


def divergences(targets: Tensor, logits: Tensor) -> Tensor:
    """KL(target || answer) in nats: (B, K), (B, K) -> (B,)."""
    own = torch.special.xlogy(targets, targets).sum(dim=1)
    return own - (targets * logits.float().log_softmax(dim=1)).sum(dim=1)


@torch.inference_mode()
def answers(tail: Tail, bank: Bank, samples: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Logits of the evaluated views of some samples, (M, classes), and the sample of each, (M,)."""
    tail.eval()
    rows, owners = bank.evaluated(samples)
    # On a GPU only whole batches: cuDNN tries its kernels anew for each size that it meets.
    missing = -len(rows) % EVALUATION_BATCH if bank.features.is_cuda else 0
    parts = torch.from_numpy(np.pad(rows, (0, missing))).to(bank.features.device).split(EVALUATION_BATCH)
    return torch.cat([tail(bank.features[part].float()) for part in parts])[: len(rows)], owners


def best_temperature(tail: Tail, bank: Bank, targets: Tensor, samples: np.ndarray) -> float:
    """Return the divisor of the logits with the least mean KL: of 1 to 10, in steps of 5%."""
    logits, owners = answers(tail, bank, samples)
    wanted = targets[torch.from_numpy(owners).to(targets.device)]
    tried = [1.05**step for step in range(48)]
    return min(tried, key=lambda temperature: divergences(wanted, logits / temperature).mean().item())


def _mean_kl(tail: Tail, bank: Bank, targets: Tensor, samples: np.ndarray) -> float:
    logits, owners = answers(tail, bank, samples)
    return divergences(targets[torch.from_numpy(owners).to(targets.device)], logits).mean().item()


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
