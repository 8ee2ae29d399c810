"""A student learns from a teacher: its answers, features and pooled embedding, and the labels where there are any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocal_video.errors import UsageError
from nonlocal_video.models.card import InputSpec
from nonlocal_video.models.inception3d import InceptionI3D
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.training.distillation.alignment import derive_view, same_span
from nonlocal_video.training.distillation.teacher import FILE_BYTES, AnswerCache, LayerOnGrid, Teacher, observe
from nonlocal_video.training.objective import Batch, Losses, Objective, cross_entropy


@dataclass(frozen=True)
class DistillConfig:
    """What a student learns from, and how much each counts."""

    teacher: str = "default"
    """A catalogue name, a training run's folder, or a weights file."""
    logits_weight: float = 1.0
    """Weight of the divergence between the two answers (Hinton et al., 2015)."""
    features_weight: float = 0.0
    """Weight of the difference between features at `layers` (Romero et al., FitNets, 2015)."""
    embedding_weight: float = 0.0
    """Weight of the difference between pooled features; with it the teacher's classifier can become the student's."""
    label_weight: float = 1.0
    """Weight of the cross entropy to the labels."""
    temperature: float = 4.0
    """Logits are divided by it before their softmax: the higher, the more unlikely classes count."""
    layers: tuple[tuple[str, str], ...] = ()
    """(layer of the student, layer of the teacher) whose outputs are compared, by dotted module name."""
    second_head: bool = False
    """The student learns the teacher's classes with a second head, which serves training only: for students of other
    classes."""

    def __post_init__(self) -> None:
        weights = ("logits_weight", "features_weight", "embedding_weight", "label_weight")
        for name in weights:
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UsageError(f"{name} = {getattr(self, name)} should be a finite number, 0 or above.")
        if not any(getattr(self, name) for name in weights[:3]):
            raise UsageError(f"All of {', '.join(weights[:3])} are 0: the teacher has no influence.")
        if not (isfinite(self.temperature) and self.temperature > 0):
            raise UsageError(f"temperature = {self.temperature} should be a finite number above 0.")
        if bool(self.layers) != bool(self.features_weight):
            raise UsageError(
                f"features_weight = {self.features_weight} and layers = {self.layers} only act together; give both, as "
                f"in layers = (('layer3', 'Mixed_4f'),), or none."
            )
        if self.second_head and not self.logits_weight:
            raise UsageError("second_head = True only acts with a logits_weight above 0; leave one of them away.")


class Distillation(Objective):
    """The weighted sum of up to four terms, each a mean over the clips that it is about.

    - `kl`: T^2 KL(p || q), with the teacher's p and the student's q at temperature T. The factor keeps the gradients'
      size whatever T is (Hinton et al., "Distilling the knowledge in a neural network", 2015, section 2.1).
    - `features`: at each pair of layers the student's output goes through a 1x1x1 convolution to the teacher's
      channels, the teacher's is averaged and interpolated to the student's grid, and the squared difference is divided
      by the teacher's square, clip by clip: 0 is the same, 1 is what all zeros would get. FitNets' hint (equation 3)
      with a scale that is the same for every layer; the mean over the pairs.
    - `embedding`: the same measure between the pooled features, the student's through a linear map where it has
      another width.
    - `cross_entropy`: to the labels. Clips without a label count for the other terms alone.

    `terms` has them unweighted. The network and the maps between both networks are submodules and learn; the teacher is
    neither part of `state_dict` nor of DDP.

    Attributes:
        network: The student.
        adaptors: The convolutions, in the order of `config.layers`.
        embedding_adaptor: The linear map; the identity where the widths agree.
        kd_head: The second head, or None.
        answer_bytes: What the teacher's answer to one view takes in a cache, at most.
        sees_kept_views: Batches hold the student's views, which `ask` gave, in the place of `view`.
    """

    def __init__(
        self,
        network: Video3DResNet | InceptionI3D,
        teacher: Teacher,
        config: DistillConfig,
        *,
        student: InputSpec,
        labels: Sequence[str],
        view: InputSpec,
        label_smoothing: float = 0.0,
        cache: AnswerCache | None = None,
        measured_cache: AnswerCache | None = None,
    ) -> None:
        """Prepare the maps; both networks run once on a small black clip, to learn their widths.

        Args:
            network: The student.
            teacher: Is frozen.
            config: Weights of the terms, temperature and layers.
            student: The student's input.
            labels: The student's classes, in the order of its outputs.
            view: How the batches' clips are made, see `viewing_spec`.
            label_smoothing: Of the cross entropy, as in `CrossEntropy`.
            cache: Where the teacher's answers are kept, in training mode.
            measured_cache: The same for the clips of measuring, in eval mode.

        Raises:
            UsageError: Classes, layers, spans or the cache do not fit.
        """
        super().__init__()
        self.network, self.config, self.student, self.view = network, config, student, view
        self.label_smoothing = label_smoothing
        self.sees_kept_views = False
        self._teacher, self._cache, self._measured_cache = teacher, cache, measured_cache
        self._same_classes = tuple(labels) == teacher.labels
        if config.logits_weight and not (config.second_head or self._same_classes):
            raise UsageError(
                f"The student's {len(labels)} classes are not the teacher's {len(teacher.labels)}, or in another "
                f"order. Give it the teacher's classes, set second_head = True, or logits_weight = 0."
            )
        if config.layers and not same_span(student, teacher.spec):
            raise UsageError(
                f"Features are compared place by place, and the student sees {student.span_seconds:.2f} s where the "
                f"teacher sees {teacher.spec.span_seconds:.2f} s. Give it the same span, or no layers."
            )
        ours, embedding = _shapes(network, (student.num_frames, student.crop), [mine for mine, _ in config.layers])
        theirs, teacher_embedding = _shapes(teacher.network, (8, 64), [other for _, other in config.layers])
        self._wanted = tuple(LayerOnGrid(other, ours[mine][1:]) for mine, other in config.layers)
        self.adaptors = nn.ModuleList(
            nn.Conv3d(ours[mine][0], theirs[other][0], kernel_size=1) for mine, other in config.layers
        )
        numbers = sum(theirs[layer][0] * prod(grid) for layer, grid in self._wanted)
        self.answer_bytes = 4 * (len(teacher.labels) + teacher_embedding) + 2 * numbers + FILE_BYTES
        self.embedding_adaptor: nn.Module = nn.Identity()
        if config.embedding_weight and embedding != teacher_embedding:
            self.embedding_adaptor = nn.Linear(embedding, teacher_embedding)
        self.kd_head = nn.Linear(embedding, len(teacher.labels)) if config.second_head else None

    def forward(self, batch: Batch) -> Losses:
        """Clips as `view` says, (N, 3, T, S, S); every clip counts, labelled or not."""
        config = self.config
        # The network's mode, not this module's: the training loop may set that of the network alone.
        cache = self._cache if self.network.training else self._measured_cache
        of = self.student if self.sees_kept_views else self.view
        if cache is not None:
            theirs = cache.answers(self._teacher, batch, of, self._wanted, ask=not self.sees_kept_views)
        else:
            theirs = self._teacher.answers(batch.clips, of, self._wanted)
        clips = derive_view(batch.clips, of, self.student)
        ours = observe(self.network, clips, [mine for mine, _ in config.layers])
        # With weight 0, too: every parameter then has a gradient, as DDP needs.
        label_loss = cross_entropy(ours.logits, batch.targets, self.label_smoothing)
        total, terms = config.label_weight * label_loss, {"cross_entropy": label_loss.detach()}

        def add(name: str, weight: float, loss: Tensor) -> None:
            nonlocal total
            total = total + weight * loss
            terms[name] = loss.detach()

        if config.logits_weight:
            logits = ours.logits if self.kd_head is None else self.kd_head(ours.embedding)
            add("kl", config.logits_weight, softened_divergence(logits, theirs.logits, config.temperature))
        if config.layers:
            losses = [
                relative_error(adaptor(mine), wanted)
                for adaptor, mine, wanted in zip(self.adaptors, ours.features, theirs.features, strict=True)
            ]
            add("features", config.features_weight, torch.stack(losses).mean())
        if config.embedding_weight:
            loss = relative_error(self.embedding_adaptor(ours.embedding), theirs.embedding)
            add("embedding", config.embedding_weight, loss)
        return Losses(total, terms, ours.logits)

    def ask(self, batch: Batch) -> Tensor:
        """Have the teacher's answers kept, and give the student's view of the clips, (N, 3, T', S', S')."""
        assert self._cache is not None
        self._cache.answers(self._teacher, batch, self.view, self._wanted)
        return derive_view(batch.clips, self.view, self.student)

    def ask_measured(self, batch: Batch) -> Tensor:
        """The same for the clips of measuring."""
        assert self._measured_cache is not None
        self._measured_cache.answers(self._teacher, batch, self.view, self._wanted)
        return derive_view(batch.clips, self.view, self.student)

    def finalize(self) -> None:
        """Where only the embedding is learnt, the teacher's classifier is the student's head."""
        config = self.config
        if config.embedding_weight and self._same_classes and not (config.logits_weight or config.label_weight):
            student_head_from_teacher(self)


def softened_divergence(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of softmaxes at temperature T, the mean over the rows: 2 x (N, K) -> scalar."""
    student = F.log_softmax(logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """|found - wanted|^2 / |wanted|^2 of each row, the mean over the rows: 2 x (N, ...) -> scalar."""
    found, wanted = found.float().flatten(1), wanted.float().flatten(1)
    square = wanted.square().sum(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    return ((found - wanted).square().sum(dim=1) / square).mean()


def classifier_of(network: Video3DResNet | InceptionI3D) -> nn.Linear | nn.Conv3d:
    """The layer from pooled features to logits; its weight is (classes, C), or (classes, C, 1, 1, 1)."""
    classifier = network.get_submodule(network.head_layer)
    assert isinstance(classifier, (nn.Linear, nn.Conv3d))
    return classifier


@torch.no_grad()
def student_head_from_teacher(distillation: Distillation) -> None:
    """Give the student the teacher's classifier, so that it answers with the teacher's classes without a label.

    With embedding adaptor A e + a and the teacher's classifier W x + b, the student's becomes (W A) e + (W a + b): the
    same function of its pooled features e, and nothing of the teacher or the adaptor is needed afterwards.

    Raises:
        UsageError: The embeddings were not matched, or the student has other classes.
    """
    if not distillation.config.embedding_weight:
        raise UsageError("embedding_weight = 0: the student's pooled features mean something else than the teacher's.")
    if not distillation._same_classes:
        raise UsageError("The student has other classes than the teacher, or in another order; its head stays its own.")
    theirs, ours = classifier_of(distillation._teacher.network), classifier_of(distillation.network)
    weight = theirs.weight.flatten(1).to(ours.weight.device, torch.float32)
    assert theirs.bias is not None  # our networks' classifiers have one
    assert ours.bias is not None
    bias = theirs.bias.to(ours.bias.device, torch.float32)
    adaptor = distillation.embedding_adaptor
    if isinstance(adaptor, nn.Linear):
        bias = bias + weight @ adaptor.bias.float()
        weight = weight @ adaptor.weight.float()
    ours.weight.copy_(weight.view_as(ours.weight))
    ours.bias.copy_(bias)


def _shapes(
    network: nn.Module, view: tuple[int, int], layers: Sequence[str]
) -> tuple[dict[str, tuple[int, int, int, int]], int]:
    """(C, T', H', W') of layers, for a view of so many frames and pixels, and the channels of the embedding."""
    num_frames, size = view
    device = next(network.parameters()).device
    with _evaluated(network), torch.no_grad():
        found = observe(network, torch.zeros(1, 3, num_frames, size, size, device=device), layers)
    shapes = {}
    for name, feature in zip(layers, found.features, strict=True):
        if feature.dim() != 5:
            raise UsageError(f"Layer {name!r} gives {tuple(feature.shape)}, should be features (N, C, T, H, W).")
        _, channels, *grid = feature.shape
        shapes[name] = (channels, grid[0], grid[1], grid[2])
    return shapes, found.embedding.shape[1]


@contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    """In eval mode, so that batch norms learn nothing; then every module as it was."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
