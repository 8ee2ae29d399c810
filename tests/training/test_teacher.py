"""An answer from the disk is the teacher's own; views that differ in anything have different names."""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distillation_pair import LABELS, STUDENT_VIEW, TEACHER_VIEW, batch_of, tiny_network, tiny_teacher
from torch import Tensor

from nonlocal_video.errors import ModelError, OutputError
from nonlocal_video.models.card import InputSpec
from nonlocal_video.training.distillation.objective import Distillation, DistillConfig
from nonlocal_video.training.distillation.teacher import AnswerCache, Answers, LayerOnGrid, Teacher
from nonlocal_video.training.objective import Batch

LAYERS = (LayerOnGrid("layer2", (4, 4, 4)), LayerOnGrid("layer4", (1, 1, 1)))


class CountingTeacher(Teacher):
    """Remembers how many clips it was asked about."""

    asked = 0

    def answers(self, clips: Tensor, of: InputSpec, layers: Sequence[LayerOnGrid] = ()) -> Answers:
        self.asked += len(clips)
        return super().answers(clips, of, layers)


def counting(seed: int = 1) -> CountingTeacher:
    plain = tiny_teacher(seed)
    return CountingTeacher(plain.network, plain.spec, plain.labels, digest=plain.digest)


def two_views(index: int, epoch: int) -> str:
    return f"clip {index} view {epoch % 2}"


def assert_equal(some: Answers, others: Answers) -> None:
    assert torch.equal(some.logits, others.logits)
    assert torch.equal(some.embedding, others.embedding)
    for feature, other in zip(some.features, others.features, strict=True):
        assert feature.dtype == torch.float16
        assert torch.equal(feature, other)


def some_of(batch: Batch, rows: list[int]) -> Batch:
    return Batch(batch.clips[rows], batch.targets[rows], batch.indices[rows], batch.epoch)


def test_a_hit_is_what_was_computed_and_the_teacher_is_not_asked(tmp_path: Path) -> None:
    teacher, batch = counting(), batch_of(4)
    cache = AnswerCache(tmp_path, two_views)
    computed = cache.answers(teacher, batch, TEACHER_VIEW, LAYERS)
    assert_equal(computed, tiny_teacher().answers(batch.clips, TEACHER_VIEW, LAYERS))
    again = AnswerCache(tmp_path, two_views)  # another process, later
    shuffled = some_of(batch, [2, 0, 3, 1])
    found = again.answers(teacher, shuffled, TEACHER_VIEW, LAYERS)
    assert torch.equal(found.logits, computed.logits[[2, 0, 3, 1]])
    assert_equal(again.answers(teacher, batch, TEACHER_VIEW, LAYERS), computed)
    assert teacher.asked == 4
    assert (again.hits, again.misses) == (8, 0)


def test_only_clips_that_are_not_there_are_computed_and_land_in_their_rows(tmp_path: Path) -> None:
    teacher, batch = counting(), batch_of(5)
    cache = AnswerCache(tmp_path, two_views)
    cache.answers(teacher, some_of(batch, [3, 1]), TEACHER_VIEW, LAYERS)
    mixed = cache.answers(teacher, batch, TEACHER_VIEW, LAYERS)
    assert teacher.asked == 5
    # Sums of another batch size may be rounded in another order.
    whole = tiny_teacher().answers(batch.clips, TEACHER_VIEW, LAYERS)
    torch.testing.assert_close(mixed.logits, whole.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mixed.features[1], whole.features[1], rtol=1e-2, atol=1e-2)


def test_it_answers_in_float32_whatever_the_students_precision() -> None:
    teacher, clips = tiny_teacher(), batch_of(2).clips
    exact = teacher.answers(clips, TEACHER_VIEW, LAYERS)
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(teacher.network(clips), exact.logits)  # the network alone would follow it
        found = teacher.answers(clips, TEACHER_VIEW, LAYERS)
    assert torch.equal(found.logits, exact.logits)
    assert torch.equal(found.embedding, exact.embedding)
    for feature, expected in zip(found.features, exact.features, strict=True):
        assert torch.equal(feature, expected)


def test_epochs_with_the_same_view_share_its_answer_and_everything_else_has_its_own(tmp_path: Path) -> None:
    teacher, batch = counting(), batch_of(2)

    def asked_for(**changes: Any) -> int:
        before = changes.get("teacher", teacher).asked
        cache = AnswerCache(tmp_path, two_views)
        given = batch._replace(epoch=changes.get("epoch", 0))
        asked = changes.get("teacher", teacher)
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(changes.get("autocast"))):
            cache.answers(asked, given, TEACHER_VIEW, changes.get("layers", LAYERS))
        return asked.asked - before

    assert asked_for() == 2
    assert asked_for(epoch=1) == 2
    assert asked_for(epoch=2) == asked_for(epoch=7) == 0
    assert asked_for(teacher=counting(2)) == 2
    assert asked_for(layers=LAYERS[1:]) == 2
    assert asked_for(layers=(LAYERS[0]._replace(grid=(4, 4, 2)), LAYERS[1])) == 2
    assert asked_for(autocast=True) == asked_for() == 0  # whatever the student's precision: the next test
    other_input = counting()
    other_input.spec = replace(other_input.spec, crop=24)
    assert asked_for(teacher=other_input) == 2


def answer_all(folder: Path, order: list[int]) -> None:
    torch.set_num_threads(1)
    cache = AnswerCache(folder, two_views)
    for index in order:
        cache.answers(tiny_teacher(), some_of(batch_of(6), [index]), TEACHER_VIEW, LAYERS)


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    orders = [list(range(6)), list(range(5, -1, -1))]
    workers = [context.Process(target=answer_all, args=(tmp_path, order)) for order in orders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    teacher, batch = counting(), batch_of(6)
    found = AnswerCache(tmp_path, two_views).answers(teacher, batch, TEACHER_VIEW, LAYERS)
    assert teacher.asked == 0
    for row in range(6):
        alone = tiny_teacher().answers(batch.clips[[row]], TEACHER_VIEW, LAYERS)
        torch.testing.assert_close(found.logits[[row]], alone.logits, rtol=1e-5, atol=1e-5)


def test_a_full_folder_takes_no_more_and_the_teacher_goes_on(tmp_path: Path) -> None:
    teacher, batch = counting(), batch_of(4)
    AnswerCache(tmp_path / "measure", two_views).answers(teacher, some_of(batch, [0]), TEACHER_VIEW)
    (file,) = (tmp_path / "measure").glob("*.npy")
    cache = AnswerCache(tmp_path / "cache", two_views, max_bytes=2 * file.stat().st_size)
    for _ in range(2):
        answers = cache.answers(teacher, batch, TEACHER_VIEW)
        torch.testing.assert_close(answers.logits, teacher.network(batch.clips), rtol=1e-4, atol=1e-4)
    assert (cache.hits, cache.misses) == (2, 6)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.npy")) <= 2 * file.stat().st_size


@pytest.mark.parametrize("where", [150, 300, -1])
def test_a_flipped_bit_is_found_and_the_teacher_asked_again(
    tmp_path: Path, where: int, caplog: pytest.LogCaptureFixture
) -> None:
    teacher, cache, batch = counting(), AnswerCache(tmp_path, two_views), batch_of(1)
    first = cache.answers(teacher, batch, TEACHER_VIEW)
    (file,) = tmp_path.glob("*.npy")
    content = bytearray(file.read_bytes())
    content[where] ^= 4
    file.write_bytes(content)
    again = cache.answers(teacher, batch, TEACHER_VIEW)
    assert torch.equal(again.logits, first.logits)
    assert teacher.asked == 2
    assert len(caplog.records) == 1
    assert "is damaged" in caplog.text
    cache.answers(teacher, batch, TEACHER_VIEW)
    assert teacher.asked == 2


def test_an_answer_is_not_asked_for_with_clips_that_the_teacher_must_not_see(tmp_path: Path) -> None:
    teacher, cache, batch = counting(), AnswerCache(tmp_path / "answers", two_views), batch_of(2)
    cache.answers(teacher, batch, TEACHER_VIEW)
    file = next((tmp_path / "answers").glob("*.npy"))
    file.write_bytes(file.read_bytes()[:-3] + b"abc")
    with pytest.raises(OutputError, match=r"outputs for 1 views are missing or damaged.*--resume recomputes them"):
        cache.answers(teacher, batch, TEACHER_VIEW, compute_missing=False)
    assert teacher.asked == 2


def test_numbers_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    teacher = tiny_teacher()
    teacher.network.fc.bias.data[1] = float("inf")
    with pytest.raises(ModelError, match="The teacher's output 'logits' for a clip is not finite"):
        AnswerCache(tmp_path, two_views).answers(teacher, batch_of(2), TEACHER_VIEW)
    assert not list(tmp_path.glob("*.npy"))


def test_the_losses_are_the_same_with_caches_which_keep_learning_and_measuring_apart(tmp_path: Path) -> None:
    config = DistillConfig(features_weight=1, embedding_weight=1, layers=(("layer2", "layer2"), ("layer3", "layer4")))

    def objective(teacher: Teacher, cache: AnswerCache | None, **more: AnswerCache) -> Distillation:
        torch.manual_seed(0)
        student, views = tiny_network(7, width=2), {"student": STUDENT_VIEW, "view": TEACHER_VIEW}
        return Distillation(student, teacher, config, labels=LABELS, cache=cache, **views, **more)

    plain = objective(tiny_teacher(), None).train()(batch_of(3))
    teacher = counting()
    for asked in (3, 3):
        cache = AnswerCache(tmp_path, two_views)
        cached = objective(teacher, cache)
        assert torch.equal(cached.train()(batch_of(3)).total, plain.total)
        assert teacher.asked == asked
    # Places of measured clips are those of another data set.
    measured = objective(teacher, cache).eval()(batch_of(3))
    assert teacher.asked == 6
    for asked in (9, 9):
        both = objective(
            teacher, cache, validation_cache=AnswerCache(tmp_path, lambda index, epoch: f"measured {index}")
        )
        assert torch.equal(both.eval()(batch_of(3)).total, measured.total)
        assert teacher.asked == asked
    both.network.train()
    hits = cache.hits
    copy.deepcopy(both)(batch_of(3))
    assert (cache.hits, teacher.asked) == (hits + 3, 9)  # of a copy, too
