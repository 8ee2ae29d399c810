"""Distillation objective: losses on the teacher's logits, features and pooled embedding, and on labels."""

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
    """Teacher, and weights of the distillation losses."""

    teacher: str = "default"
    """Teacher model: a catalogue name, a training run's folder, or a weights file."""
    logits_weight: float = 1.0
    """Weight of the divergence between the two networks' answers (Hinton et al., 2015)."""
    features_weight: float = 0.0
    """Weight of the difference between features at `layers` (Romero et al., FitNets, 2015)."""
    embedding_weight: float = 0.0
    """Weight of the difference between the pooled features; needed to give the student the teacher's classifier."""
    label_weight: float = 1.0
    """Weight of the cross-entropy with the labels."""
    temperature: float = 4.0
    """Divisor of the logits before the softmax: the higher, the more unlikely classes count."""
    layers: tuple[tuple[str, str], ...] = ()
    """Pairs of layers whose outputs are compared: (student's, teacher's), as dotted module names."""
    second_head: bool = False
    """Learn the teacher's classes on a second head, which serves training only: for a student with other classes."""

    def __post_init__(self) -> None:
        weights = ("logits_weight", "features_weight", "embedding_weight", "label_weight")
        for name in weights:
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UsageError(f"{name} = {getattr(self, name)} should be a finite number, 0 or above.")
        if not any(getattr(self, name) for name in weights[:3]):
            raise UsageError(f"All of {', '.join(weights[:3])} are 0, so the teacher has no influence.")
        if not (isfinite(self.temperature) and self.temperature > 0):
            raise UsageError(f"temperature = {self.temperature} should be a finite number above 0.")
        if bool(self.layers) != bool(self.features_weight):
            raise UsageError(
                f"features_weight = {self.features_weight} and layers = {self.layers} need each other; give both, as "
                f"in layers = (('layer3', 'Mixed_4f'),), or none."
            )
        if self.second_head and not self.logits_weight:
            raise UsageError("second_head = True needs logits_weight above 0; change one of them.")


class Distillation(Objective):
    """Weighted sum of up to four loss terms, each a mean over clips.

    - `kl`: T^2 KL(p || q), with the teacher's p and the student's q at temperature T. The factor keeps the size of the
      gradients independent of T (Hinton et al., "Distilling the knowledge in a neural network", 2015, section 2.1).
    - `features`: for each pair of layers, a 1x1x1 convolution maps the student's output to the teacher's channels, and
      the teacher's output is averaged or interpolated to the student's grid. The squared difference is divided by the
      squared norm of the teacher's, per clip: 0 is equal, 1 is what zeros would get. This is FitNets' hint loss
      (equation 3) with the same scale for every layer, averaged over the pairs.
    - `embedding`: the same loss on the pooled features; a linear layer maps the student's if the widths differ.
    - `cross_entropy`: cross entropy with the labels, over labelled clips.

    `terms` contains them unweighted. The network and the adaptors are trainable submodules; the teacher is part of
    neither `state_dict` nor DDP.

    Attributes:
        network: The student.
        adaptors: The convolutions, in the order of `config.layers`.
        embedding_adaptor: The linear layer; the identity if the widths agree.
        kd_head: The second head, or None.
        answer_bytes: Largest size of the teacher's cached output for one view, in bytes.
        uses_cached_views: Whether batches contain the student's cached views instead of clips for `view`.
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
        validation_cache: AnswerCache | None = None,
    ) -> None:
        """Make the adaptors; both networks run once on a black clip, which gives their widths.

        Args:
            network: The student.
            teacher: The frozen teacher.
            config: Weights of the terms, temperature and layers.
            student: Input of the student.
            labels: Classes of the student, in the order of its outputs.
            view: Input that the clips of a batch are made for, see `viewing_spec`.
            label_smoothing: Label smoothing of the cross entropy, as in `CrossEntropy`.
            cache: Cache of the teacher's outputs for training clips.
            validation_cache: Cache of the teacher's outputs for validation clips, used in eval mode.

        Raises:
            UsageError: Classes, layers or spans do not fit together.
        """
        super().__init__()
        self.network, self.config, self.student, self.view = network, config, student, view
        self.label_smoothing = label_smoothing
        self.uses_cached_views = False
        self._teacher, self._cache, self._validation_cache = teacher, cache, validation_cache
        self._same_classes = tuple(labels) == teacher.labels
        if config.logits_weight and not (config.second_head or self._same_classes):
            raise UsageError(
                f"The student's {len(labels)} classes differ from the teacher's {len(teacher.labels)}, or their "
                f"order does. Use the teacher's classes, set second_head = True, or logits_weight = 0."
            )
        if config.layers and not same_span(student, teacher.spec):
            raise UsageError(
                f"Features are compared position by position, and the student sees {student.span_seconds:.2f} s where "
                f"the teacher sees {teacher.spec.span_seconds:.2f} s. Use the same span, or no layers."
            )
        ours, embedding = _shapes(
            network, (student.num_frames, student.crop), [student_layer for student_layer, _ in config.layers]
        )
        theirs, teacher_embedding = _shapes(
            teacher.network, (8, 64), [teacher_layer for _, teacher_layer in config.layers]
        )
        self._teacher_layers = tuple(
            LayerOnGrid(teacher_layer, ours[student_layer][1:]) for student_layer, teacher_layer in config.layers
        )
        self.adaptors = nn.ModuleList(
            nn.Conv3d(ours[student_layer][0], theirs[teacher_layer][0], kernel_size=1)
            for student_layer, teacher_layer in config.layers
        )
        numbers = sum(theirs[layer][0] * prod(grid) for layer, grid in self._teacher_layers)
        self.answer_bytes = 4 * (len(teacher.labels) + teacher_embedding) + 2 * numbers + FILE_BYTES
        self.embedding_adaptor: nn.Module = nn.Identity()
        if config.embedding_weight and embedding != teacher_embedding:
            self.embedding_adaptor = nn.Linear(embedding, teacher_embedding)
        self.kd_head = nn.Linear(embedding, len(teacher.labels)) if config.second_head else None

    def forward(self, batch: Batch) -> Losses:
        """Return the losses of a batch of clips made for `view`, (N, 3, T, S, S), labelled or not."""
        config = self.config
        # The network's mode, not this module's: the training loop may set that of the network alone.
        cache = self._cache if self.network.training else self._validation_cache
        source = self.student if self.uses_cached_views else self.view
        if cache is not None:
            theirs = cache.answers(
                self._teacher, batch, source, self._teacher_layers, compute_missing=not self.uses_cached_views
            )
        else:
            theirs = self._teacher.answers(batch.clips, source, self._teacher_layers)
        clips = derive_view(batch.clips, source, self.student)
        ours = observe(self.network, clips, [student_layer for student_layer, _ in config.layers])
        # Also with weight 0: DDP needs a gradient for every parameter.
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
                relative_error(adaptor(feature), target)
                for adaptor, feature, target in zip(self.adaptors, ours.features, theirs.features, strict=True)
            ]
            add("features", config.features_weight, torch.stack(losses).mean())
        if config.embedding_weight:
            loss = relative_error(self.embedding_adaptor(ours.embedding), theirs.embedding)
            add("embedding", config.embedding_weight, loss)
        return Losses(total, terms, ours.logits)

    def cache_training_answers(self, batch: Batch) -> Tensor:
        """Cache the teacher's outputs; return the student's view of the clips, (N, 3, T', S', S')."""
        assert self._cache is not None
        self._cache.answers(self._teacher, batch, self.view, self._teacher_layers)
        return derive_view(batch.clips, self.view, self.student)

    def cache_validation_answers(self, batch: Batch) -> Tensor:
        """Do the same as `cache_training_answers` for validation clips."""
        assert self._validation_cache is not None
        self._validation_cache.answers(self._teacher, batch, self.view, self._teacher_layers)
        return derive_view(batch.clips, self.view, self.student)

    def finalize(self) -> None:
        """Copy the teacher's classifier into the student's head if only the embedding was trained."""
        config = self.config
        if config.embedding_weight and self._same_classes and not (config.logits_weight or config.label_weight):
            student_head_from_teacher(self)


def softened_divergence(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student) of the softmaxes at temperature T, averaged over rows: 2 x (N, K) -> scalar."""
    student = F.log_softmax(logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def relative_error(output: Tensor, target: Tensor) -> Tensor:
    """Return |output - target|^2 / |target|^2, averaged over rows: 2 x (N, ...) -> scalar."""
    output, target = output.float().flatten(1), target.float().flatten(1)
    square = target.square().sum(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    return ((output - target).square().sum(dim=1) / square).mean()


def classifier_of(network: Video3DResNet | InceptionI3D) -> nn.Linear | nn.Conv3d:
    """Return the layer from pooled features to logits; its weight is (classes, C) or (classes, C, 1, 1, 1)."""
    classifier = network.get_submodule(network.head_layer)
    assert isinstance(classifier, (nn.Linear, nn.Conv3d))
    return classifier


@torch.no_grad()
def student_head_from_teacher(distillation: Distillation) -> None:
    """Copy the teacher's classifier into the student, which then predicts the teacher's classes without labels.

    With the embedding adaptor A e + a and the teacher's classifier W x + b, the student's becomes (W A) e + (W a + b):
    the same function of its pooled features e. Teacher and adaptor are not needed afterwards.

    Raises:
        UsageError: The embeddings were not trained, or the student has other classes.
    """
    if not distillation.config.embedding_weight:
        raise UsageError("embedding_weight = 0, so the student's pooled features do not match the teacher's.")
    if not distillation._same_classes:
        raise UsageError("The student's classes or their order differ from the teacher's, so it keeps its own head.")
    theirs, ours = classifier_of(distillation._teacher.network), classifier_of(distillation.network)
    weight = theirs.weight.flatten(1).to(ours.weight.device, torch.float32)
    assert theirs.bias is not None  # all our classifiers have one
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
    """Return the (C, T', H', W') of layers by name, for a view of (frames, pixels), and the width of the embedding."""
    num_frames, size = view
    device = next(network.parameters()).device
    with _eval_mode(network), torch.no_grad():
        output = observe(network, torch.zeros(1, 3, num_frames, size, size, device=device), layers)
    shapes = {}
    for name, feature in zip(layers, output.features, strict=True):
        if feature.dim() != 5:
            raise UsageError(f"Layer {name!r} gives the shape {tuple(feature.shape)}, should be (N, C, T, H, W).")
        _, channels, *grid = feature.shape
        shapes[name] = (channels, grid[0], grid[1], grid[2])
    return shapes, output.embedding.shape[1]


@contextmanager
def _eval_mode(network: nn.Module) -> Iterator[None]:
    """Set eval mode, so that batch norms do not update; restore the mode of every module afterwards."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
