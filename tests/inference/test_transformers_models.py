"""Video classifiers of transformers answer as in their own library, and take part in everything that models do here."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))
from random_networks import needs_openvino
from transformers_folders import KINDS, LABELS, SIDE, small_folder, transformers

import nonlocal_video as nlv
from nonlocal_video.errors import ModelError, UsageError
from nonlocal_video.models.checkpoint import load_checkpoint, save_checkpoint
from nonlocal_video.video.encode import write_video


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of every kind."""
    root = tmp_path_factory.mktemp("transformers")
    return {kind: small_folder(root / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """31 frames of 61 x 90 pixels of a moving gradient, so that no size and no number of frames divides evenly."""
    y, x = np.mgrid[:61, :90]
    path = tmp_path_factory.mktemp("clip") / "moving.mp4"
    frames = (
        np.stack([(x * 2 + 5 * n) % 256, (y * 3 + 7 * n) % 256, (x + y + n) % 256], axis=-1).astype(np.uint8)
        for n in range(31)
    )
    write_video(path, frames, fps=10)
    return path


@pytest.fixture(params=["gradient", pytest.param("real", marks=pytest.mark.slow)])
def any_clip(request: pytest.FixtureRequest) -> Path:
    """The clip of a gradient, and a real one."""
    if request.param == "gradient":
        made: Path = request.getfixturevalue("clip")
        return made
    return next((request.getfixturevalue("data_folder") / "clips" / "playing_basketball").iterdir())


@functools.cache  # of the two clips that every kind is shown
def every_frame(clip: Path) -> np.ndarray:
    with av.open(str(clip)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def library_input(folder: Path, clip: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """The library's model, and what its processor makes of the frames that its pipeline would choose."""
    model = transformers.AutoModelForVideoClassification.from_pretrained(folder, attn_implementation="eager").eval()
    processor = transformers.AutoVideoProcessor.from_pretrained(folder)
    frames = every_frame(clip)
    num_frames = getattr(model.config, "num_frames", None) or model.config.frames_per_clip
    chosen = frames[np.arange(num_frames) * len(frames) // num_frames]
    return model, processor(chosen.transpose(0, 3, 1, 2), return_tensors="pt", do_sample_frames=False)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_library(kind: str, folders: dict[str, Path], any_clip: Path) -> None:
    model, given = library_input(folders[kind], any_clip)
    with torch.inference_mode():
        expected = model(**given).logits[0].numpy()
    with nlv.load(folders[kind], device="cpu") as recognizer:
        prediction = recognizer.classify(any_clip)
        seen = recognizer.preprocess(any_clip)
    (pixels,) = given.values()
    torch.testing.assert_close(seen, pixels.transpose(1, 2), rtol=0, atol=1e-5)
    assert np.abs(prediction.logits - expected).max() < 1e-4 * np.abs(expected).max()
    assert prediction.labels == LABELS
    assert prediction.features.shape == (24,)


def test_a_folder_with_the_older_name_of_the_preset_is_the_same(tmp_path: Path, folders: dict[str, Path]) -> None:
    older = small_folder(tmp_path / "older", "videomae", legacy=True)
    assert (older / "preprocessor_config.json").is_file()
    with nlv.load(older) as one, nlv.load(folders["videomae"]) as other:
        assert one.card.input == other.card.input
        assert one.card.input.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_librarys_own_pipeline_gives_the_same_answer(kind: str, folders: dict[str, Path], any_clip: Path) -> None:
    """Its sampling, preset, network and scores; only the frames are read by PyAV, as it needs torchcodec for files."""

    def read(path: str, sample_indices_fn: Any) -> tuple[list[torch.Tensor], list[Any]]:
        frames = every_frame(Path(path))
        about = transformers.video_utils.VideoMetadata(total_num_frames=len(frames), fps=10.0)
        return [torch.from_numpy(frames[sample_indices_fn(metadata=about)]).permute(0, 3, 1, 2)], [about]

    pipeline = transformers.pipeline("video-classification", model=str(folders[kind]), device="cpu")
    pipeline.video_processor.fetch_videos = lambda videos, sample_indices_fn: read(videos[0], sample_indices_fn)
    with nlv.load(folders[kind]) as recognizer:
        expected = pipeline(str(any_clip), num_frames=recognizer.card.input.num_frames, top_k=5)
        found = recognizer.classify(any_clip).top(5)
    assert [one.label for one in found] == [one["label"] for one in expected]
    assert [one.score for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_the_mean_of_the_models_own_heads(kind: str, folders: dict[str, Path], clip: Path) -> None:
    model, given = library_input(folders[kind], clip)
    with torch.inference_mode():
        weights = model(**given, output_attentions=True).attentions[-1].mean(dim=1)  # (B or frames, N, N)
    with nlv.load(folders[kind]) as recognizer:
        layout = recognizer.network.token_layout("")
        received = recognizer.explain(clip, method="attention")
        asked = recognizer.explain(clip, query=(1.55, 0.5, 0.5))
    before, num_frames = layout.num_before, layout.size[0]
    weights = weights[:, before:, before:]
    if kind == "timesformer":  # within each frame
        expected = weights.mean(dim=1)
        expected = expected / expected.sum(dim=1, keepdim=True) * expected.shape[1]
    else:
        expected = weights[0].mean(dim=0)
        expected = expected / expected.sum() * len(expected)
    np.testing.assert_allclose(received.cells, expected.reshape(layout.size).numpy(), rtol=1e-3, atol=1e-5)
    if kind == "timesformer":
        assert [frame.any() for frame in asked.cells] == [index == asked.query_index for index in range(num_frames)]
    assert asked.cells.sum() == pytest.approx(layout.num_patches, rel=1e-4)


def test_evidence_of_a_mean_of_tokens_sums_to_the_logit(folders: dict[str, Path], clip: Path) -> None:
    with nlv.load(folders["videomae"]) as recognizer:
        model = recognizer.network.model
        for index in range(3):
            maps = recognizer.explain(clip, label=index)
            bias = model.classifier.bias[index] + model.classifier.weight[index] @ model.fc_norm.bias
            logit = recognizer.classify(clip).logits[index]
            assert maps.cells.sum() == pytest.approx(logit - bias.item(), abs=1e-4)
    assert "exact" in maps.quantity


@pytest.mark.parametrize("kind", ["timesformer", "vivit", "vjepa2"])
def test_evidence_of_other_heads_is_grad_cam_of_patches(kind: str, folders: dict[str, Path], clip: Path) -> None:
    with nlv.load(folders[kind]) as recognizer:
        layout = recognizer.network.token_layout("")
        by_label = [recognizer.explain(clip, label=label) for label in LABELS]
    assert {maps.quantity for maps in by_label} == {"Grad-CAM"}
    assert all(maps.cells.shape == layout.size for maps in by_label)
    assert sum(maps.cells.any() for maps in by_label) >= 2
    assert maps_differ(by_label)


def maps_differ(maps: list[nlv.AttentionMaps]) -> bool:
    return any(not np.allclose(maps[0].cells, other.cells) for other in maps[1:])


def test_a_bright_place_is_where_the_patch_is(folders: dict[str, Path]) -> None:
    """A patch of its own colour attends and is attended to differently: the map's odd cell lies on it."""
    frames = np.zeros((8, SIDE, SIDE, 3), np.uint8)
    frames[4:6, 8:16, 24:32] = 255  # the third of four pairs of frames, the second row, the fourth column
    for kind in ("videomae", "timesformer", "vjepa2"):
        with nlv.load(folders[kind]) as recognizer:
            chosen = frames[::2] if kind == "timesformer" else frames
            cells = recognizer.explain(chosen, method="attention", frames_per_second=8).cells
        odd = np.abs(cells - np.median(cells)).argmax()
        found = np.unravel_index(odd, cells.shape)
        # Attention over time carries a place of one frame into the others.
        assert found[1:] == (1, 3) if kind == "timesformer" else found == (2, 1, 3), kind


def test_a_layers_features_are_means_of_its_tokens(folders: dict[str, Path], clip: Path) -> None:
    model, given = library_input(folders["videomae"], clip)
    with torch.inference_mode():
        tokens = model(**given, output_hidden_states=True).hidden_states[2]
    with nlv.load(folders["videomae"]) as recognizer:
        features = recognizer.features(clip, layer="model.videomae.encoder.layer.1", window_seconds=3.1)
    np.testing.assert_allclose(features.features[0], tokens[0].mean(dim=0), rtol=1e-3, atol=1e-4)


@needs_openvino
@pytest.mark.slow
def test_openvino_runs_it(folders: dict[str, Path], clip: Path) -> None:
    for kind in ("videomae", "timesformer"):
        with nlv.load(folders[kind], runtime="openvino") as fast, nlv.load(folders[kind], runtime="torch") as usual:
            expected = usual.classify(clip).logits
            found = fast.classify(clip)
            assert (usual.runtime, found.runtime) == ("torch", "openvino")
            assert np.abs(found.logits - expected).max() < 1e-4 * np.abs(expected).max()


def test_its_run_file_carries_the_network(folders: dict[str, Path], tmp_path: Path, clip: Path) -> None:
    with nlv.load(folders["vivit"]) as recognizer:
        expected = recognizer.classify(clip).logits
        save_checkpoint(tmp_path / "vivit.safetensors", recognizer.network, recognizer.card, dtype=torch.float32)
    network, card = load_checkpoint(tmp_path / "vivit.safetensors")
    with nlv.Recognizer(network, card, device="cpu") as again:
        np.testing.assert_allclose(again.classify(clip).logits, expected, rtol=1e-5, atol=1e-6)


def test_several_views_of_a_whole_clip_are_refused(folders: dict[str, Path], clip: Path) -> None:
    with nlv.load(folders["videomae"]) as recognizer:
        with pytest.raises(UsageError, match="spread over the whole clip"):
            recognizer.classify(clip, views="3x1")
        assert len(recognizer.classify(clip, views="1x3").seen) == 3


@pytest.mark.slow
def test_it_teaches_and_searches_and_draws_a_timeline(
    folders: dict[str, Path], tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colours = {"red": (220, 20, 20), "blue": (20, 20, 220)}
    random = np.random.default_rng(0)
    for label, colour in colours.items():
        (tmp_path / "examples" / label).mkdir(parents=True)
        for number in range(4):
            frames = np.clip(np.array(colour) + random.normal(0, 25, (12, 48, 64, 3)), 0, 255).astype(np.uint8)
            write_video(tmp_path / "examples" / label / f"{number}.mp4", iter(frames), fps=6)
    taught = nlv.teach(tmp_path / "examples", output=tmp_path / "run", model=str(folders["videomae"]))
    assert taught.report.accuracy is not None
    assert taught.report.accuracy > 0.9
    with nlv.load(tmp_path / "run") as recognizer:
        assert recognizer.labels == ("blue", "red")
        assert recognizer.classify(tmp_path / "examples" / "red" / "0.mp4").top1.label == "red"
        assert recognizer.explain(clip, method="evidence").quantity.endswith("exact")
        timeline = recognizer.timeline(clip, window_seconds=1)
        assert len(timeline.starts) > 3
    hits = nlv.search(
        tmp_path / "examples", like=tmp_path / "examples" / "red" / "0.mp4", model=str(folders["videomae"]), top_k=3,
        index=tmp_path / "index.parquet",
    )  # fmt: skip
    assert {Path(hit.path).parent.name for hit in hits} == {"red"}


def test_what_it_is_not_is_said(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match=r"'bert' cannot be used.*vjepa2"):
        nlv.load(tmp_path / "bert")
    pickled = small_folder(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \.safetensors file"):
        nlv.load(pickled)
    with pytest.raises(ModelError, match="format of transformers"):
        nlv.build(folders["videomae"])


@pytest.mark.slow
def test_without_the_library_the_extra_is_named(folders: dict[str, Path]) -> None:
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "import nonlocal_video as nlv\n"
        "try:\n    nlv.load(sys.argv[1])\n"
        "except nlv.UsageError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folders["videomae"])], capture_output=True, text=True, check=True
    )
    assert "pip install 'nonlocal-video[transformers]'" in done.stdout
