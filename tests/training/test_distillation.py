"""Each term against plain loops; who learns, and who never does; the teacher's classifier as the student's head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from distillation_pair import LABELS, STUDENT_VIEW, TEACHER_VIEW, batch_of, tiny_network, tiny_teacher
from torch import Tensor

from nonlocal_video.errors import UsageError
from nonlocal_video.models.inception3d import InceptionI3D, InceptionI3DConfig
from nonlocal_video.training.distillation.alignment import derive_view
from nonlocal_video.training.distillation.objective import (
    Distillation,
    DistillConfig,
    classifier_of,
    relative_error,
    softened_divergence,
    student_head_from_teacher,
)
from nonlocal_video.training.distillation.teacher import Teacher, observe, to_grid

LAYERS = (("layer2", "layer3"), ("layer4", "layer4"))
EVERYTHING = DistillConfig(features_weight=0.5, embedding_weight=2.0, label_weight=0.25, layers=LAYERS)


def distillation(
    config: DistillConfig, *, width: int = 2, labels: Sequence[str] = LABELS, **changes: Any
) -> Distillation:
    student = tiny_network(7, width=width, num_classes=len(labels))
    torch.manual_seed(0)
    given: dict[str, Any] = {"student": STUDENT_VIEW, "view": TEACHER_VIEW, "labels": labels, **changes}
    return Distillation(student, given.pop("teacher", None) or tiny_teacher(), config, **given)


def divergence_by_loops(student: Tensor, teacher: Tensor, temperature: float) -> float:
    total = 0.0
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        q = [math.exp(value / temperature) for value in ours]
        p = [math.exp(value / temperature) for value in theirs]
        for mine, other in zip(q, p, strict=True):
            total += other / sum(p) * math.log((other / sum(p)) / (mine / sum(q)))
    return temperature**2 * total / len(student)


def test_divergence_is_that_of_plain_loops() -> None:
    student, teacher = torch.randn(5, 4), 3 * torch.randn(5, 4)
    for temperature in (1.0, 2.0, 7.0):
        found = softened_divergence(student, teacher, temperature).item()
        assert found == pytest.approx(divergence_by_loops(student, teacher, temperature), rel=1e-5)
    assert softened_divergence(teacher, teacher, 3.0).item() == pytest.approx(0, abs=1e-6)


def test_its_gradient_keeps_its_size_whatever_the_temperature() -> None:
    """Hinton et al., equation 4: at high temperatures it tends to (z - v) / classes for logits without a mean."""
    student, teacher = torch.randn(1, 6), torch.randn(1, 6)
    student, teacher = student - student.mean(), teacher - teacher.mean()
    student.requires_grad_()
    softened_divergence(student, teacher, 1000.0).backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / 6, rtol=0.01, atol=1e-3)


def test_errors_are_relative_to_the_teacher_clip_by_clip() -> None:
    wanted = torch.randn(3, 2, 4, 5, 5)
    assert relative_error(wanted, wanted).item() == 0
    assert relative_error(torch.zeros_like(wanted), wanted).item() == pytest.approx(1)
    louder = wanted * torch.tensor([1.0, 100.0, 0.01]).view(3, 1, 1, 1, 1)
    found = wanted + torch.randn_like(wanted)
    shares = [((f - w) ** 2).sum() / (w**2).sum() for f, w in zip(found.numpy(), wanted.numpy(), strict=True)]
    assert relative_error(found, wanted).item() == pytest.approx(np.mean(shares), rel=1e-5)
    assert relative_error(1.5 * louder, louder).item() == pytest.approx(0.25)
    assert relative_error(torch.ones(1, 2), torch.zeros(1, 2)).isfinite()


def test_grids_are_averaged_where_coarser_and_interpolated_where_finer() -> None:
    """A ramp along each axis: a cell's value is the position of its middle, on any grid."""
    t, h, w = (torch.arange(size) + 0.5 for size in (4, 8, 6))
    ramp = torch.stack([axis.expand(4, 8, 6) for axis in (t[:, None, None] / 4, h[:, None] / 8, w / 6)])[None].half()
    moved = to_grid(ramp, (8, 2, 6))
    assert moved.shape == (1, 3, 8, 2, 6)
    assert moved.dtype == torch.float32
    # Linear interpolation cannot look beyond the outermost middles.
    expected_t = ((torch.arange(8) + 0.5) / 8).clamp(0.125, 0.875)
    torch.testing.assert_close(moved[0, 0, :, 0, 0], expected_t, rtol=0, atol=1e-3)
    torch.testing.assert_close(moved[0, 1, 0, :, 0], torch.tensor([0.25, 0.75]), rtol=0, atol=1e-3)
    torch.testing.assert_close(moved[0, 2, 0, 0], (w / 6), rtol=0, atol=1e-3)


@pytest.mark.parametrize("labelled", [4, 2, 0])
def test_the_loss_is_the_weighted_sum_of_its_terms(labelled: int) -> None:
    objective, teacher, batch = distillation(EVERYTHING), tiny_teacher(), batch_of(4, labelled=labelled)
    losses = objective.eval()(batch)  # batch norms as they stand, so that the same can be computed again
    ours = derive_view(batch.clips, TEACHER_VIEW, STUDENT_VIEW)
    with torch.no_grad():
        logits, theirs = objective.network(ours), teacher.network(batch.clips)
    torch.testing.assert_close(losses.logits, logits)
    expected = {"kl": divergence_by_loops(logits, theirs, 4.0)}
    chosen = [-logits[row].log_softmax(0)[row % 3].item() for row in range(labelled)]
    expected["cross_entropy"] = sum(chosen) / max(1, labelled)
    student_stages = objective.network.extract_features(ours, ["stage2", "stage4"])
    teacher_stages = teacher.network.extract_features(batch.clips, ["stage3", "stage4"])
    pairs = zip(objective.adaptors, student_stages.values(), teacher_stages.values(), strict=True)
    found = []
    for adaptor, mine, other in pairs:
        assert adaptor.weight.shape == (other.shape[1], mine.shape[1], 1, 1, 1)
        mapped = torch.einsum("dc,ncthw->ndthw", adaptor.weight.flatten(1), mine) + adaptor.bias.view(-1, 1, 1, 1)
        other = to_grid(other, tuple(mine.shape[2:]))
        found.append(((mapped - other).square().flatten(1).sum(1) / other.square().flatten(1).sum(1)).mean().item())
    expected["features"] = sum(found) / 2
    pooled, wanted = student_stages["stage4"].mean((2, 3, 4)), teacher_stages["stage4"].mean((2, 3, 4))
    mapped = pooled @ objective.embedding_adaptor.weight.T + objective.embedding_adaptor.bias
    expected["embedding"] = ((mapped - wanted).square().sum(1) / wanted.square().sum(1)).mean().item()
    assert {name: term.item() for name, term in losses.terms.items()} == pytest.approx(expected, rel=2e-3)
    weights = {"kl": 1.0, "features": 0.5, "embedding": 2.0, "cross_entropy": 0.25}
    total = sum(weights[name] * term.item() for name, term in losses.terms.items())
    assert losses.total.item() == pytest.approx(total, rel=1e-5)
    assert not any(term.requires_grad for term in losses.terms.values())


@pytest.mark.parametrize(
    "config",
    [
        EVERYTHING,
        replace(EVERYTHING, second_head=True),
        DistillConfig(logits_weight=0, embedding_weight=1, label_weight=0),
    ],
)
def test_gradients_reach_all_that_learns_and_never_the_teacher(config: DistillConfig) -> None:
    teacher = tiny_teacher()
    before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    objective = distillation(config, teacher=teacher).train()
    objective(batch_of(3, labelled=1)).total.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name  # DDP waits for each
    learning = [name for name, parameter in objective.named_parameters() if parameter.grad.abs().sum() > 0]
    assert any(name.startswith("network.stem") for name in learning)
    assert {name.split(".")[0] for name in learning} == {name.split(".")[0] for name, _ in objective.named_parameters()}
    assert not teacher.network.training
    for name, tensor in teacher.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name  # no gradient step, no batch norm statistics
    assert all(parameter.grad is None for parameter in teacher.network.parameters())
    assert not any("teacher" in name for name in [*objective.state_dict(), *dict(objective.named_modules())])


def test_it_runs_in_bfloat16() -> None:
    objective, batch = distillation(EVERYTHING).eval(), batch_of(3)
    exact = objective(batch)
    with torch.autocast("cpu", torch.bfloat16):
        losses = objective(batch)
    assert losses.total.dtype == torch.float32
    assert losses.total.item() == pytest.approx(exact.total.item(), rel=0.05)


def test_it_learns_the_teachers_answers_without_a_label() -> None:
    objective, teacher = distillation(DistillConfig(temperature=2.0), width=4).train(), tiny_teacher()
    optimiser = torch.optim.Adam(objective.parameters(), lr=0.01)
    batch = batch_of(6, labelled=0)
    terms = []
    for _ in range(40):
        optimiser.zero_grad()
        losses = objective(batch)
        losses.total.backward()
        optimiser.step()
        terms.append(losses.terms["kl"].item())
        assert losses.terms["cross_entropy"].item() == 0
    assert terms[-1] < 0.1 * terms[0]
    # In training mode, as after so few steps batch norms' running statistics are not there yet.
    assert objective(batch).logits.argmax(1).tolist() == teacher.network(batch.clips).argmax(1).tolist()


def test_a_student_of_other_classes_learns_with_a_second_head() -> None:
    config = replace(EVERYTHING, second_head=True)
    objective = distillation(config, labels=("sit", "stand"))
    assert objective.kd_head is not None
    assert objective.kd_head.weight.shape == (3, 16)
    batch = batch_of(4, labelled=1, classes=2)
    losses = objective.eval()(batch)
    assert losses.logits.shape == (4, 2)
    pooled = observe(objective.network, derive_view(batch.clips, TEACHER_VIEW, STUDENT_VIEW)).embedding
    with torch.no_grad():
        expected = divergence_by_loops(objective.kd_head(pooled), tiny_teacher().network(batch.clips), 4.0)
    assert losses.terms["kl"].item() == pytest.approx(expected, rel=1e-4)
    with pytest.raises(UsageError, match=r"2 classes differ from the teacher's 3.*set second_head = True"):
        distillation(DistillConfig(), labels=("sit", "stand"))
    with pytest.raises(UsageError, match="or their order does"):
        distillation(DistillConfig(), labels=LABELS[::-1])


@pytest.mark.parametrize("width", [2, 3])
def test_the_teachers_classifier_becomes_the_students_head(width: int) -> None:
    """Its own head answers as map and teacher's classifier do, with a linear map (another width) and without."""
    teacher = tiny_teacher()
    objective = distillation(DistillConfig(logits_weight=0, embedding_weight=1), width=width, teacher=teacher).eval()
    assert isinstance(objective.embedding_adaptor, torch.nn.Linear) == (width == 2)
    clips = torch.randn(5, 3, 4, 24, 24)
    with torch.no_grad():
        embedding = objective.embedding_adaptor(observe(objective.network, clips).embedding)
        expected = teacher.network.fc(embedding)
        student_head_from_teacher(objective)
        torch.testing.assert_close(objective.network(clips), expected, rtol=1e-4, atol=1e-4)
    assert objective.network.fc.weight.requires_grad
    with pytest.raises(UsageError, match="embedding_weight = 0"):
        student_head_from_teacher(distillation(DistillConfig()))
    with pytest.raises(UsageError, match="classes or their order differ from the teacher's"):
        student_head_from_teacher(
            distillation(DistillConfig(logits_weight=0, embedding_weight=1), labels=("sit", "stand", "run"))
        )


def test_an_inception_teaches_with_its_pairs_of_frames_averaged() -> None:
    """Its classifier looks at means of two frames; the pooled embedding is what it makes of all of them."""
    network = InceptionI3D(InceptionI3DConfig(num_classes=3)).eval()
    found = observe(network, torch.randn(1, 3, 24, 32, 32), ["Mixed_4b"])
    classifier = classifier_of(network)
    with torch.no_grad():
        again = found.embedding @ classifier.weight.flatten(1).T + classifier.bias
    assert found.embedding.shape == (1, 1024)
    assert found.features[0].shape == (1, 512, 6, 2, 2)
    torch.testing.assert_close(found.logits, again, rtol=1e-4, atol=1e-4)
    # Dropout comes after what is compared.
    student = tiny_network(0, width=2, dropout=0.9)
    kept = observe(student.train(), torch.randn(2, 3, 4, 24, 24), ["layer4"])
    torch.testing.assert_close(kept.embedding, kept.features[0].mean((2, 3, 4)))


def test_the_default_is_a_teacher() -> None:
    teacher = Teacher.load("default")
    assert (len(teacher.labels), len(teacher.digest)) == (400, 64)
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits_weight": 0.0}, "All of logits_weight, features_weight, embedding_weight are 0"),
        ({"label_weight": -1.0}, "label_weight = -1.0 should be a finite number, 0 or above"),
        ({"temperature": 0.0}, "temperature = 0.0 should be"),
        ({"features_weight": 1.0}, r"features_weight = 1.0 and layers = \(\) need each other"),
        ({"layers": LAYERS}, "features_weight = 0.0 and layers = .* need each other"),
        (
            {"logits_weight": 0.0, "embedding_weight": 1.0, "second_head": True},
            "second_head = True needs logits_weight",
        ),
    ],
)
def test_configurations_that_contradict_themselves_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DistillConfig(**changes)


def test_what_does_not_fit_the_networks_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Video3DResNet has no layer 'layer9'; it has stem, .*layer4"):
        distillation(replace(EVERYTHING, layers=(("layer9", "layer3"),)))
    with pytest.raises(UsageError, match=r"Layer 'fc' gives the shape \(1, 3\), should be"):
        distillation(replace(EVERYTHING, layers=(("layer3", "fc"),)))
    with pytest.raises(UsageError, match=r"the student sees 0.50 s where the teacher sees 1.00 s"):
        distillation(EVERYTHING, student=replace(STUDENT_VIEW, num_frames=2))
    distillation(DistillConfig(embedding_weight=1), student=replace(STUDENT_VIEW, num_frames=2))
