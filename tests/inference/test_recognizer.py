"""The Recognizer: the same answer from every way in, honest about what it looked at."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

import nonlocal_video as nlv
from nonlocal_video.models.card import ModelCard
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.sampling import plan_views
from nonlocal_video.video.transforms import cut, normalise, resize_short_side, spatial_views


@pytest.fixture(scope="module")
def recognizer(tiny_model: Path):
    with nlv.load(tiny_model, device="cpu") as loaded:
        yield loaded


def scores_by_hand(model: Path, clip: Path, *, num_clips: int = 1, num_crops: int = 1) -> np.ndarray:
    """The unfolded network on views that are put together here, step by step."""
    from nonlocal_video.models.checkpoint import load_checkpoint

    network, card = load_checkpoint(model)
    spec = card.input
    with VideoReader(decoder="pyav") as reader:
        info = reader.probe(clip)
        views = plan_views(
            info, num_frames=spec.num_frames, frames_per_second=spec.frames_per_second, num_clips=num_clips
        )
        probabilities = []
        for view in views:
            frames = reader.read(clip, view.times_seconds)
            shown = resize_short_side(torch.from_numpy(frames.frames_thwc[frames.frame_of_time]), spec.short_side)
            for crop in spatial_views(
                info.height, info.width, short_side=spec.short_side, crop=spec.crop, num_crops=num_crops
            ):
                with torch.inference_mode():
                    logits = network(normalise(cut(shown, crop), spec.mean, spec.std)[None])
                probabilities.append(logits[0].softmax(0).numpy())
    return np.mean(probabilities, axis=0)


@pytest.mark.parametrize(("views", "num_clips", "num_crops"), [("1x1", 1, 1), ("3x1", 3, 1), ("2x3", 2, 3)])
def test_scores_are_the_mean_softmax_over_the_views(recognizer, tiny_model, clip_folder, views, num_clips, num_crops):
    clip = clip_folder / "a.mp4"
    prediction = recognizer.classify(clip, views=views)
    expected = scores_by_hand(tiny_model, clip, num_clips=num_clips, num_crops=num_crops)
    np.testing.assert_allclose(prediction.scores, expected, atol=1e-5)
    assert prediction.scores.max() - prediction.scores.min() > 0.01  # the comparison means something
    assert (len(prediction.views), prediction.num_crops) == (num_clips, num_crops)


def test_file_bytes_and_frames_give_the_same_scores(recognizer, clip_folder: Path) -> None:
    clip = clip_folder / "a.mp4"
    from_file = recognizer.classify(clip)
    from_bytes = recognizer.classify(clip.read_bytes())
    with VideoReader() as reader:
        frames = reader.read(clip, [(index + 0.5) / 10 for index in range(20)]).frames_thwc
    from_array = recognizer.classify(frames, frames_per_second=10)
    from_list = recognizer.classify(list(frames), frames_per_second=10)
    for other in (from_bytes, from_array, from_list):
        np.testing.assert_array_equal(from_file.scores, other.scores)
    assert [p.path for p in (from_bytes, from_array)] == ["<bytes>", "<frames>"]
    assert from_array.video.decoder == "memory"


def test_frames_are_taken_however_they_lie_in_memory(recognizer) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, 72, 96, 3), dtype=np.uint8)
    expected = recognizer.classify(frames, frames_per_second=10).scores
    read_only = np.frombuffer(frames.tobytes(), np.uint8).reshape(frames.shape)
    backwards = np.ascontiguousarray(frames[::-1, ..., ::-1])[::-1, ..., ::-1]
    for same in (read_only, backwards, np.asfortranarray(frames), np.repeat(frames, 2, axis=2)[:, :, ::2]):
        np.testing.assert_array_equal(recognizer.classify(same, frames_per_second=10).scores, expected)
    tensor = torch.from_numpy(frames)
    np.testing.assert_array_equal(recognizer.classify(tensor, frames_per_second=10).scores, expected)
    for without_rate in (frames, list(frames), tensor):
        assert "The frames came without a rate" in " ".join(recognizer.classify(without_rate).notes)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (None, r"frames have shape \(\) object \(NoneType\); give RGB uint8"),
        (np.zeros((4, 8, 8, 3)), "float64 .*give RGB uint8"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], "frames are no one array"),
        (torch.zeros((4, 8, 8, 3), requires_grad=True), "frames are no one array"),
    ],
)
def test_what_are_no_frames_is_said(recognizer, frames: object, message: str) -> None:
    with pytest.raises(nlv.UsageError, match=message):
        recognizer.classify(frames)


def test_a_rate_is_one_and_belongs_to_frames(recognizer, clip_folder: Path) -> None:
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    for rate in (0, -1, float("nan"), float("inf")):
        with pytest.raises(nlv.UsageError, match="should be a finite number above 0"):
            recognizer.classify(frames, frames_per_second=rate)
    with pytest.raises(nlv.UsageError, match="a video file has its own times"):
        recognizer.classify(clip_folder / "a.mp4", frames_per_second=10)
    with pytest.raises(nlv.UsageError, match="views = 3 should be CLIPSxCROPS"):
        recognizer.classify(frames, views=3)


def test_twice_gives_the_same_bits_and_the_same_from_look(recognizer, clip_folder: Path) -> None:
    clip = clip_folder / "a.mp4"
    first = recognizer.classify(clip)
    np.testing.assert_array_equal(first.scores, recognizer.classify(clip).scores)
    np.testing.assert_array_equal(first.scores, recognizer.explain_all(clip).prediction.scores)


def test_a_folder_gives_an_outcome_for_every_file(recognizer, clip_folder: Path) -> None:
    with pytest.raises(nlv.UsageError, match=r"is a folder; use recognizer\.classify_folder"):
        recognizer.classify(clip_folder)
    outcomes = recognizer.classify_folder(clip_folder).outcomes
    assert [Path(outcome.path).relative_to(clip_folder).as_posix() for outcome in outcomes] == [
        "a.mp4", "b/c.mp4", "b/note.mp4", "z with space.mp4",
    ]  # fmt: skip
    assert [type(outcome).__name__ for outcome in outcomes] == ["Prediction", "Prediction", "Failure", "Prediction"]
    assert outcomes[2].error.code == "not_a_video"


def test_it_is_called_and_gives_what_the_network_gets(recognizer, clip_folder: Path) -> None:
    clip = clip_folder / "a.mp4"
    prediction = recognizer(clip, views="2x3")
    assert prediction.top1 == prediction.top(3)[0]
    assert prediction.timings.total > 0
    views = recognizer.preprocess(clip, views="2x3")
    spec = recognizer.card.input
    assert views.shape == (6, 3, spec.num_frames, spec.crop, spec.crop)
    with torch.inference_mode():
        scores = recognizer.network(views).softmax(1).mean(0).numpy()
    np.testing.assert_allclose(scores, prediction.scores, atol=1e-5)
    assert recognizer.labels == prediction.labels
    assert repr(recognizer) == f"Recognizer({recognizer.card.name!r}, {len(recognizer.labels)} classes, cpu)"


def test_a_short_clip_is_looped_and_says_so(recognizer, clip_folder: Path) -> None:
    assert recognizer.classify(clip_folder / "a.mp4").notes == ()
    short = recognizer.classify(clip_folder / "z with space.mp4")
    assert "looped" in short.notes[0]
    assert short.views[0].looped


def test_span_and_fast_view_are_used_and_reported(recognizer, clip_folder: Path) -> None:
    prediction = recognizer.classify(clip_folder / "a.mp4", start_seconds=1.0)
    assert (prediction.views[0].start_seconds, prediction.views[0].end_seconds) == (1.1, 1.9)
    fast = recognizer.classify(clip_folder / "a.mp4", fast=True)
    assert fast.num_frames == 4
    assert "1 view of 4 frames" in fast.summary
    assert not np.array_equal(fast.scores, recognizer.classify(clip_folder / "a.mp4").scores)


def test_top_is_sorted_and_never_longer_than_the_classes(recognizer, clip_folder: Path) -> None:
    prediction = recognizer.classify(clip_folder / "a.mp4")
    top = prediction.top(100)
    assert len(top) == 7
    assert [scored.score for scored in top] == sorted(prediction.scores, reverse=True)
    assert all(prediction.labels[scored.index] == scored.label for scored in top)
    with pytest.raises(nlv.UsageError, match="at least 1"):
        prediction.top(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"views": "10"}, "CLIPSxCROPS"),
        ({"views": "0x1"}, "CLIPSxCROPS"),
        ({"views": "1x2"}, "1 or 3 crops"),
        ({"start_seconds": 60.0}, "before the video's end"),
        ({"start_seconds": 1.0, "end_seconds": 0.5}, "should be after"),
    ],
)
def test_bad_arguments_are_refused_in_words(recognizer, clip_folder: Path, arguments, message) -> None:
    with pytest.raises(nlv.UsageError, match=message):
        recognizer.classify(clip_folder / "a.mp4", **arguments)


@pytest.mark.parametrize(
    "frames", [np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8, 3)), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_arrays_that_are_not_rgb_frames_are_refused(recognizer, frames) -> None:
    with pytest.raises(nlv.UsageError, match="uint8"):
        recognizer.classify(frames)


def test_scores_that_are_not_finite_are_an_error_that_names_the_layer(tiny_model: Path, clip_folder: Path) -> None:
    from nonlocal_video.models.checkpoint import load_checkpoint

    network, card = load_checkpoint(tiny_model)
    with torch.no_grad():
        network.get_submodule("layer2.0.conv1.conv").weight[0] = float("nan")
    with (
        nlv.Recognizer(network, card, device="cpu") as broken,
        pytest.raises(nlv.ModelError, match=r"not finite.*layer2\.0\.conv1"),
    ):
        broken.classify(clip_folder / "a.mp4")


def test_unknown_model_and_device_say_what_is_allowed(tiny_model: Path) -> None:
    with pytest.raises(nlv.ModelError, match="nonlocal-video weights list"):
        nlv.load("resnet-of-my-dreams")
    with pytest.raises(nlv.UsageError, match="auto, cpu, cuda"):
        nlv.load(tiny_model, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(nlv.UsageError, match="Use --device auto or cpu"):
            nlv.load(tiny_model, device="cuda")


def test_red_clip_reaches_the_network_as_red(clip_folder: Path, tmp_path: Path) -> None:
    from nonlocal_video.models.card import InputSpec
    from nonlocal_video.video.encode import write_video

    write_video(tmp_path / "red.mp4", [np.full((64, 64, 3), (255, 0, 0), np.uint8)] * 8, fps=10)
    spec = InputSpec(num_frames=4, frames_per_second=10, short_side=32, crop=32, mean=(0, 0, 0), std=(1, 1, 1))
    card = ModelCard(name="colour", architecture="none", config={}, input=spec, labels=("red", "green", "blue"))

    class MeanColour(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 10 * x.mean(dim=(2, 3, 4))

    with nlv.Recognizer(MeanColour(), card, device="cpu") as colour:
        assert colour.classify(tmp_path / "red.mp4").top(1)[0].label == "red"
        assert colour.classify(tmp_path / "red.mp4").scores[0] > 0.99


def test_frames_too_elongated_for_the_resize_are_refused_before_decoding(recognizer) -> None:
    needle = np.zeros((2, 1, 20_000, 3), np.uint8)  # at a short side of 64 it would be 1.3 million pixels wide
    with pytest.raises(nlv.VideoError, match="elongated") as caught:
        recognizer.classify(needle)
    assert caught.value.code == "too_large"


def test_frames_larger_than_a_screen_are_kept_smaller_for_drawing(recognizer) -> None:
    frames = np.zeros((2, 1500, 3000, 3), np.uint8)
    explanation = recognizer.explain_all(frames, frames_per_second=10)
    assert explanation.frame(0).shape == (960, 1920, 3)
    assert explanation.attention_received().frame_map(0).shape == (960, 1920)


def test_stages_are_announced_in_order(recognizer, clip_folder: Path) -> None:
    stages: list[str] = []
    recognizer.classify(clip_folder / "a.mp4", on_stage=stages.append)
    recognizer.explain_all(clip_folder / "a.mp4", on_stage=stages.append)
    assert stages == ["reading", "network"] * 2


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("classify", "source views fast start_seconds end_seconds frames_per_second region on_stage"),
        ("preprocess", "source views fast start_seconds end_seconds frames_per_second region"),
        ("explain", "source fast start_seconds end_seconds frames_per_second region method query label layer"),
        ("timeline", "path fast start_seconds end_seconds region window_seconds stride_seconds batch_size context"),
    ],
)
def test_help_lists_every_argument(recognizer: nlv.Recognizer, method: str, wanted: str) -> None:
    parameters = inspect.signature(getattr(recognizer, method)).parameters
    assert " ".join(parameters) == wanted
    assert all(one.kind is one.KEYWORD_ONLY for one in list(parameters.values())[1:])
    assert parameters["fast"].default is False
    assert parameters["start_seconds"].default is None
    with pytest.raises(TypeError, match=rf"{method}\(\) has no argument 'angles'; it has .*fast, start_seconds"):
        getattr(recognizer, method)("a.mp4", angles="3x1")


def test_one_view_is_explained(recognizer: nlv.Recognizer, clip_folder: Path) -> None:
    with pytest.raises(TypeError, match="has no argument 'views'"):
        recognizer.explain(clip_folder / "a.mp4", views="3x1")  # type: ignore[call-arg]
