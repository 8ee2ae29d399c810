"""Files that are not weights, are damaged, or describe what no machine could hold: one sentence and no memory."""

from __future__ import annotations

import json
import random
import resource
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from random_networks import KERNELS, clips_of, logits_of, random_network, resnet_card
from safetensors.torch import load_file, save_file

import nonlocal_video as nlv
from nonlocal_video.errors import ModelError
from nonlocal_video.models.checkpoint import CARD_KEY, build_network, load_checkpoint, read_card, save_checkpoint
from nonlocal_video.zoo.convert import convert_file
from nonlocal_video.zoo.weights_file import read_weights_file

pytestmark = pytest.mark.slow

CARD = resnet_card(KERNELS)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    save_checkpoint(path, random_network(CARD), CARD, dtype=torch.float32)
    return path


@pytest.fixture
def with_header(good: Path, tmp_path: Path) -> Callable[[bytes], Path]:
    """The same tensors under another header."""

    def write(header: bytes) -> Path:
        raw = good.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        path = tmp_path / "changed.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + length :])
        return path

    return write


@pytest.fixture
def with_card(good: Path, with_header: Callable[[bytes], Path]) -> Callable[[str], Path]:
    """The same tensors with another card."""
    raw = good.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    return lambda text: with_header(json.dumps({**header, "__metadata__": {CARD_KEY: text}}).encode())


def refusal(path: Path, ask: Callable[[Path], object] = load_checkpoint) -> str:
    with pytest.raises(ModelError) as caught:
        ask(path)
    words = str(caught.value)
    assert "\n" not in words
    assert len(words) < 2000
    return words


def changed_card(where: tuple[str, ...], value: object) -> str:
    values: Any = json.loads(json.dumps(asdict(CARD)))
    inner = values
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    return json.dumps(values)


HUGE_OR_SENSELESS: list[tuple[tuple[str, ...], object]] = [
    (("input", "num_frames"), 10**9),
    (("input", "crop"), 10**6),
    (("input", "short_side"), 10**6),
    (("input", "num_frames"), -8),
    (("input", "mean"), [float("nan"), 0.5, 0.5]),
    (("input", "std"), [float("inf"), 0.5, 0.5]),
    (("input", "std"), [0.0, 0.5, 0.5]),
    (("input", "std"), [-0.2, 0.5, 0.5]),
    (("input", "frames_per_second"), float("nan")),
    (("input", "frames_per_second"), 1e300),
    (("input", "frame_stride"), 10**9),
    (("input", "resize_to"), [40, 10**9]),
    (("config", "width"), 10**9),
    (("config", "width"), 10**6),
    (("config", "width"), -1),
    (("config", "num_classes"), 10**9),
    (("config", "blocks_per_stage"), [10**9, 1, 1, 1]),
    (("config", "stem_kernel"), [10**9 + 1, 7, 7]),
    (("config", "stem_mid_channels"), 10**12),
    (("config", "temporal_kernels"), [[3]] * 10**5),
    (("config", "bn_eps"), -1),
    (("config", "stage_strides"), [[0, 0, 0]] * 4),
    (("config", "stem_pool"), {"kernel": [1, 3, 3], "stride": [1, 2, 2], "padding": [5, 5, 5]}),
    (("config", "dropout"), float("nan")),
    (("config", "nonlocal_blocks", "layer1.0", "inter_channels"), 10**9),
    (("config", "nonlocal_blocks", "layer1.0", "inter_channels"), 10**30),
    (("head_window",), [10**9, 7, 7]),
    (("head_window",), [-1, 7, 7]),
    (("published",), {"top1": float("nan"), "top5": 90.0, "views": "1x1"}),
]


@pytest.mark.parametrize(("where", "value"), HUGE_OR_SENSELESS)
def test_cards_of_nothing_real(with_card: Callable[[str], Path], where: tuple[str, ...], value: object) -> None:
    path = with_card(changed_card(where, value))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.parametrize("depth", [300, 3_000, 100_000])
def test_deep_cards(with_card: Callable[[str], Path], depth: int) -> None:
    refusal(with_card("[" * depth + "]" * depth))
    whole = json.dumps(asdict(CARD))
    for name, start in (("config", '"config": {'), ("input", '"input": {')):
        deep = whole.replace(start, start + '"deep": ' + '{"a":' * depth + "1" + "}" * depth + ", ")
        assert deep != whole, name
        refusal(with_card(deep))
        refusal(with_card(deep), read_card)


def test_a_card_that_says_something_twice(good: Path, with_card, with_header) -> None:
    assert "twice" in refusal(with_card(json.dumps(asdict(CARD))[:-1] + ', "name": "another"}'))
    raw = good.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = raw[8 : 8 + length].decode().rstrip()
    again = json.dumps({"fc.bias": json.loads(header)["fc.bias"]})
    assert "twice" in refusal(with_header((header[:-1] + "," + again[1:]).encode()))


def test_a_network_that_has_no_memory_is_refused_by_build_too() -> None:
    from dataclasses import replace

    with pytest.raises(ModelError, match="parameters"):
        build_network(replace(CARD, config={**CARD.config, "width": 10**6}))


@pytest.mark.parametrize(
    ("dtype", "fits"),
    [(torch.float16, True), (torch.bfloat16, True), (torch.float32, True), (torch.float64, False), (torch.int32, False),
     (torch.int64, False), (torch.bool, False), (torch.float8_e4m3fn, False)],
)  # fmt: skip
def test_dtypes_are_compared(good: Path, tmp_path: Path, dtype: torch.dtype, fits: bool) -> None:
    tensors, path = load_file(good), tmp_path / "other.safetensors"
    tensors["fc.weight"] = tensors["fc.weight"].to(dtype)
    save_file(tensors, path, metadata={CARD_KEY: json.dumps(asdict(CARD))})
    if fits:
        assert load_checkpoint(path)[0].fc.weight.dtype == torch.float32
    else:
        name = str(dtype).removeprefix("torch.")
        assert f"fc.weight is {name} instead of float32 or float16 or bfloat16" in refusal(path)


def test_counters_are_integers(good: Path, tmp_path: Path) -> None:
    tensors, path = load_file(good), tmp_path / "other.safetensors"
    counter = next(name for name in tensors if name.endswith("num_batches_tracked"))
    for dtype in (torch.float32, torch.int32, torch.bool):
        save_file({**tensors, counter: tensors[counter].to(dtype)}, path, metadata={CARD_KEY: json.dumps(asdict(CARD))})
        assert f"{counter} is {str(dtype).removeprefix('torch.')} instead of int64" in refusal(path)


def test_random_damage(good: Path, tmp_path: Path) -> None:
    """Whatever bytes of the header change, there is a network or a ModelError."""
    raw, dice, path = good.read_bytes(), random.Random(0), tmp_path / "m.safetensors"
    (length,) = struct.unpack("<Q", raw[:8])
    refusals: list[str] = []
    damaged = [raw[:cut] for cut in (1, 7, 8, 9, 100, 8 + length, len(raw) - 1)]
    damaged += [
        struct.pack("<Q", size) + raw[8:] for size in (0, length - 1, length + 1, 10**8, 2**60, 2**63, 2**64 - 1)
    ]
    for _ in range(150):
        changed = bytearray(raw)
        for _ in range(dice.choice((1, 3, 20))):
            changed[dice.randrange(8 + length)] = dice.randrange(256)
        damaged.append(bytes(changed))
    page = (Path(__file__).resolve().parents[2] / "docs" / "reliability.md").read_text("utf-8")
    assert f"{len(damaged)} mutants of headers, cuts and lengths, three readers each" in page
    for content in damaged:
        path.write_bytes(content)
        for ask in (load_checkpoint, read_card, read_weights_file):
            try:
                ask(path)
            except ModelError as error:
                refusals.append(str(error))
    assert len(refusals) > len(damaged)
    assert not any("\n" in words for words in refusals)


NO_WEIGHTS = {
    "git-lfs pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "git-annex pointer": "/annex/objects/MD5E-s1--abc.pth\n",
    "HTML page": "\ufeff\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>",
    "an HTML page": "<!-- saved -->\n<HTML lang='en'><body>404</body></HTML>",
    "XML document": '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "JSON text": '{"error": "Invalid username or password."}',
    "a JSON text": '{"a":1,\n{ "b"',
    "text file": "Epoch 3: loss 1.2, top-1 34%\n",
    "is empty": "",
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights.pkl"])
def test_what_is_no_weights_is_called_that(tmp_path: Path, run, kind: str, name: str) -> None:
    path = tmp_path / name
    path.write_text(NO_WEIGHTS[kind], "utf-8")
    for ask in (load_checkpoint, read_card, read_weights_file, lambda p: nlv.load(str(p))):
        assert kind in refusal(path, ask)
    with pytest.raises(ModelError, match=kind):
        convert_file(path, tmp_path / "out.safetensors")
    for arguments in (
        ("classify", tmp_path / "clip.mp4", "--model", path),
        ("weights", "info", path),
        ("weights", "convert", path, "--output", tmp_path / "out.safetensors"),
    ):
        done = run(*arguments)
        assert done.status == 2
        assert kind in done.err


def test_verify_calls_a_pointer_a_pointer(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NONLOCAL_VIDEO_WEIGHTS", str(tmp_path))
    name = "slow-r50-8x8-k400-pytorchvideo"
    (tmp_path / f"{name}.safetensors").write_text(NO_WEIGHTS["git-lfs pointer"])
    done = run("weights", "verify", name)
    assert done.status == 1
    assert "git-lfs pointer" in done.err


def test_texts_in_other_encodings_and_archives(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for content, kind in (
        ("héllo wörld, ".encode("utf-16") * 400, "text file"),
        ("日本語の文書".encode() * 400, "text file"),  # cut within a letter
        (b"\x1f\x8b\x08\x00" + bytes(20), "gzip archive"),
    ):
        path.write_bytes(content)
        assert kind in refusal(path, read_weights_file)


def test_what_wraps_a_network_leaves_names_that_load(good: Path, tmp_path: Path) -> None:
    """torch.compile, DataParallel, both, and a part that was compiled."""
    tensors, path = load_file(good), tmp_path / "wrapped.safetensors"
    card = {CARD_KEY: json.dumps(asdict(CARD))}
    expected = logits_of(load_checkpoint(good)[0], clips_of(CARD, 1))
    for rename in (
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: name.replace("layer3.", "layer3._orig_mod."),
    ):
        save_file({rename(name): tensor for name, tensor in tensors.items()}, path, metadata=card)
        assert (logits_of(load_checkpoint(path)[0], clips_of(CARD, 1)) == expected).all()
        torch.save({rename(name): tensor for name, tensor in tensors.items()}, tmp_path / "wrapped.pth")
        assert read_weights_file(tmp_path / "wrapped.pth").tensors.keys() == tensors.keys()
    save_file({**tensors, "fc._orig_mod.bias": tensors["fc.bias"].clone()}, path, metadata=card)
    assert "twice" in refusal(path)
    network = load_checkpoint(good)[0]
    compiled = torch.compile(network, backend="eager")
    assert isinstance(compiled, torch.nn.Module)
    assert next(iter(compiled.state_dict())).startswith("_orig_mod.")
    save_checkpoint(path, compiled, CARD, dtype=torch.float32)
    assert path.read_bytes() == good.read_bytes()
    save_checkpoint(path, torch.nn.DataParallel(network), CARD, dtype=torch.float32)
    assert load_file(path).keys() == tensors.keys()
