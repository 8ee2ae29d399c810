"""Converting accounts for every tensor, guesses nothing and runs nothing."""

from __future__ import annotations

import os
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from published_tensors import affine, random_state, save_caffe2
from safetensors.torch import save_file
from torch import Tensor

from nonlocal_video.errors import ModelError
from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.zoo import convert
from nonlocal_video.zoo.convert import convert_file, recognise

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("thin_catalogue")]

DOT = "i3d-nl-dot-r50-32x2-k400-mmaction2"
EMBEDDED = "i3d-nl-embedded-r50-32x2-k400-mmaction2"
CAFFE2 = "i3d-nl-r50-32x2-k400-caffe2"
PYSLOWFAST = "i3d-nl-r50-8x8-k400-pyslowfast"
BLOBS = "videononlocalnet_i3d_nl_32x2_r50.caffe2_blobs"


@pytest.fixture
def mmaction2_state() -> dict[str, Tensor]:
    return random_state("mmaction2_i3d_nl_dot_product_r50")


def saved(path: Path, state: dict[str, Tensor], **beside: object) -> Path:
    torch.save({"state_dict": state, **beside}, path)
    return path


def converted_tensors(file: Path, **how: object) -> dict[str, Tensor]:
    output = file.with_name("out.safetensors")
    convert_file(file, output, **how)
    return load_checkpoint(output)[0].state_dict()


# ---- What a file is


def test_the_file_does_not_say_which_of_several_networks_it_is(
    tmp_path: Path, mmaction2_state: dict[str, Tensor]
) -> None:
    file = saved(tmp_path / "weights.pth", mmaction2_state)
    candidates = recognise(file)
    assert candidates == [DOT, EMBEDDED, f"{DOT}-v0", f"{EMBEDDED}-v0"]
    with pytest.raises(ModelError, match=r"fits 4 networks.*(padding, scale, order).*--as NAME") as caught:
        convert_file(file, tmp_path / "out.safetensors")
    assert all(name in str(caught.value) for name in candidates)
    assert not (tmp_path / "out.safetensors").exists()


def test_caffe2_files_fit_networks_that_differ_in_padding_and_strides(tmp_path: Path) -> None:
    state = random_state(BLOBS)
    assert recognise(save_caffe2(tmp_path / "bn.pkl", state)) == [
        PYSLOWFAST,
        CAFFE2,
        "i3d-nl-r50-8x8-k400-caffe2",
    ]
    assert recognise(save_caffe2(tmp_path / "affine.pkl", affine(state))) == [
        "i3d-nl-r50-32x4-k400-caffe2",
        "i3d-nl-r50-128x1-k400-caffe2",
    ]
    with pytest.raises(ModelError, match=r"is not i3d-nl-r50-32x4-k400-caffe2.*unexpected: res_conv1_bn_rm"):
        convert_file(tmp_path / "bn.pkl", tmp_path / "out.safetensors", name="i3d-nl-r50-32x4-k400-caffe2")
    with pytest.raises(ModelError, match=rf"is not {CAFFE2}.*missing: res_conv1_bn_rm, res_conv1_bn_riv"):
        convert_file(tmp_path / "affine.pkl", tmp_path / "out.safetensors", name=CAFFE2)


@pytest.mark.parametrize("digits", [8, 64])
def test_a_published_hash_settles_it(
    digits: int, tmp_path: Path, mmaction2_state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(tmp_path / "weights.pth", mmaction2_state)
    rows = dict(convert.entries())
    download = rows[EMBEDDED].download
    assert download is not None
    published = sha256(file.read_bytes()).hexdigest()[:digits]
    rows[EMBEDDED] = replace(rows[EMBEDDED], download=replace(download, sha256=published))
    monkeypatch.setattr(convert, "entries", lambda: rows)
    monkeypatch.setattr(convert, "entry", rows.__getitem__)
    assert convert_file(file, tmp_path / "out.safetensors").name == EMBEDDED
    assert convert_file(file, tmp_path / "out.safetensors", name=EMBEDDED).name == EMBEDDED
    with pytest.raises(ModelError, match=rf"By its SHA-256, .* is {EMBEDDED} and not {DOT}"):
        convert_file(file, tmp_path / "out.safetensors", name=DOT)


def test_a_file_without_the_blocks_is_not_the_network_with_them(tmp_path: Path) -> None:
    """One published link of MMAction2's SlowOnly must be such a file."""
    state = random_state("mmaction2_slowonly_nl_embedded_gaussian_4x16_r50")
    plain = {name: tensor for name, tensor in state.items() if "non_local" not in name}
    with pytest.raises(ModelError, match=r"60 missing: backbone\.layer2\.0\.non_local_block"):
        convert_file(
            saved(tmp_path / "weights.pth", plain),
            tmp_path / "out.safetensors",
            name="slowonly-nl-embedded-r50-8x8-k400-mmaction2",
        )


# ---- Strictness


def test_everything_that_does_not_fit_is_listed(tmp_path: Path, mmaction2_state: dict[str, Tensor]) -> None:
    del mmaction2_state["backbone.layer3.5.conv2.bn.running_var"]
    mmaction2_state["backbone.extra"] = torch.ones(2)
    mmaction2_state["backbone.conv1.conv.weight"] = torch.ones(8, 3, 5, 7, 5)
    mmaction2_state["cls_head.fc_cls.weight"] = torch.ones(400, 256, dtype=torch.int8)
    with pytest.raises(ModelError) as caught:
        convert_file(saved(tmp_path / "weights.pth", mmaction2_state), tmp_path / "out.safetensors", name=DOT)
    message = str(caught.value)
    assert "1 missing: backbone.layer3.5.conv2.bn.running_var" in message
    assert "1 unexpected: backbone.extra" in message
    assert "backbone.conv1.conv.weight is (8, 3, 5, 7, 5) instead of (8, 3, 5, 7, 7)" in message
    assert "cls_head.fc_cls.weight is of int8 instead of float32" in message
    assert not (tmp_path / "out.safetensors").exists()


def test_a_file_of_no_known_network(tmp_path: Path, mmaction2_state: dict[str, Tensor]) -> None:
    del mmaction2_state["backbone.layer3.5.conv2.bn.running_var"]
    file = saved(tmp_path / "weights.pth", mmaction2_state)
    assert recognise(file) == []
    with pytest.raises(ModelError, match=rf"fits no network .*; the closest is {DOT} \(MMAction2 names\)"):
        convert_file(file, tmp_path / "out.safetensors")


def test_what_is_not_used_is_named(tmp_path: Path) -> None:
    state = random_state(BLOBS)
    momentum = [name for name in state if name.endswith("_momentum")]
    assert momentum
    converted = convert_file(save_caffe2(tmp_path / "a.pkl", state), tmp_path / "out.safetensors", name=CAFFE2)
    assert sorted(converted.ignored) == sorted([*momentum, "lr", "model_iter"])
    assert converted.tensors_used + len(converted.ignored) == len(state)
    assert converted.input_sha256 == sha256((tmp_path / "a.pkl").read_bytes()).hexdigest()
    assert (converted.source, converted.output) == ("video-nonlocal-net", tmp_path / "out.safetensors")


def test_what_lies_beside_the_weights_is_named(tmp_path: Path, mmaction2_state: dict[str, Tensor]) -> None:
    file = saved(tmp_path / "weights.pth", mmaction2_state, epoch=3, optimizer={"lr": 0.1}, meta={"seed": 1})
    converted = convert_file(file, tmp_path / "out.safetensors", name=DOT)
    assert converted.ignored == ("epoch", "meta", "optimizer")
    assert converted.tensors_used == len(mmaction2_state)


def test_numbers_stay_as_they_are(tmp_path: Path, mmaction2_state: dict[str, Tensor]) -> None:
    tensors = converted_tensors(saved(tmp_path / "weights.pth", mmaction2_state), name=DOT)
    assert torch.equal(tensors["stem.conv.weight"], mmaction2_state["backbone.conv1.conv.weight"])
    assert int(tensors["layer4.2.conv3.bn.num_batches_tracked"]) == 7
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize(
    ("dtype", "problem"),
    [
        (torch.int32, "of int32 instead of float32"),
        (torch.bool, "of bool instead of float32"),
        (torch.complex64, "of complex64 instead of float32"),
        (torch.float64, "of float64, with numbers that float32 does not hold"),
        (torch.float16, None),
    ],
)
def test_dtypes_are_compared(tmp_path: Path, mmaction2_state: dict[str, Tensor], dtype: torch.dtype, problem) -> None:
    name = next(name for name, tensor in mmaction2_state.items() if tensor.is_floating_point() and tensor.ndim == 5)
    changed = mmaction2_state | {name: (mmaction2_state[name].double() / 3).to(dtype)}
    file, output = saved(tmp_path / "a.pth", changed), tmp_path / "o.safetensors"
    if problem is None:
        convert_file(file, output, name=DOT)
        assert output.exists()
    else:
        with pytest.raises(ModelError, match=f"{name} is {problem}"):
            convert_file(file, output, name=DOT)
        assert not output.exists()


def test_affine_layers_become_batch_norms_that_do_the_same(tmp_path: Path) -> None:
    state = affine(random_state(BLOBS), blocks=True)
    tensors = converted_tensors(save_caffe2(tmp_path / "affine.pkl", state), name="i3d-nl-r50-32x4-k400-caffe2")
    assert torch.equal(tensors["stem.bn.running_mean"], torch.zeros(8))
    assert torch.equal(tensors["stem.bn.running_var"] + 1e-5, torch.ones(8))
    assert torch.equal(tensors["layer2.nonlocal1.bn.weight"], state["nonlocal_conv3_1_bn_s"])

    del state["nonlocal_conv4_5_bn_b"]
    with pytest.raises(ModelError, match=r"1 missing: nonlocal_conv4_5_bn_b"):
        converted_tensors(save_caffe2(tmp_path / "part.pkl", state), name="i3d-nl-r50-32x4-k400-caffe2")


def test_blocks_without_batch_norm_get_one_that_does_nothing(tmp_path: Path) -> None:
    state = affine(random_state(BLOBS))
    tensors = converted_tensors(save_caffe2(tmp_path / "affine.pkl", state), name="i3d-nl-r50-32x4-k400-caffe2")
    assert torch.equal(tensors["layer2.nonlocal1.W.bias"], state["nonlocal_conv3_1_out_b"])
    bn = {name: tensors[f"layer2.nonlocal1.bn.{name}"] for name in ("weight", "bias", "running_mean", "running_var")}
    x = torch.randn(2, 64, 3)
    y = torch.nn.functional.batch_norm(x, bn["running_mean"], bn["running_var"], bn["weight"], bn["bias"], eps=1e-5)
    assert torch.equal(x, y)


@pytest.mark.parametrize("drop_all", [True, False])
def test_counters_may_be_absent_but_not_in_part(
    drop_all: bool, tmp_path: Path, mmaction2_state: dict[str, Tensor]
) -> None:
    counters = [name for name in mmaction2_state if name.endswith("num_batches_tracked")]
    for name in counters if drop_all else counters[:1]:
        del mmaction2_state[name]
    file = saved(tmp_path / "weights.pth", mmaction2_state)
    if drop_all:
        assert int(converted_tensors(file, name=DOT)["stem.bn.num_batches_tracked"]) == 0
    else:
        with pytest.raises(ModelError, match=r"1 missing: backbone\.conv1\.bn\.num_batches_tracked"):
            convert_file(file, tmp_path / "out.safetensors", name=DOT)


# ---- Forms of one network


@pytest.mark.parametrize(
    "prefix", ["module.", "module.model.", "model.", "_orig_mod.", "module._orig_mod.", "model._orig_mod.module."]
)
def test_prefixes_are_taken_off(prefix: str, tmp_path: Path, mmaction2_state: dict[str, Tensor]) -> None:
    with_prefix = {prefix + name: tensor for name, tensor in mmaction2_state.items()}
    tensors = converted_tensors(saved(tmp_path / "weights.pth", with_prefix), name=DOT)
    assert torch.equal(tensors["fc.bias"], mmaction2_state["cls_head.fc_cls.bias"])


def test_tushar_ns_port_gives_the_same_as_the_caffe2_file(tmp_path: Path) -> None:
    state = random_state("videononlocalnet_i3d_nl_32x2_r50")
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "port.pth")
    blobs = {}
    for name, tensor in state.items():
        blob = re.sub(r"layer(\d)\.", lambda m: f"res{int(m[1]) + 1}_", name)
        blob = re.sub(r"res(\d)_(\d)\.nl\.", r"nonlocal_conv\1_\2_", blob)
        blob = re.sub(r"\.(conv|bn)([123])\.", lambda m: f"_branch2{' abc'[int(m[2])]}_{m[1]}.", blob)
        blob = blob.replace(".downsample.0.", "_branch1_conv.").replace(".downsample.1.", "_branch1_bn.")
        blob = blob.replace("_conv.", ".").replace("fc.", "pred.")
        blob = re.sub(r"^bn1\.", "res_conv1_bn.", blob)
        is_bn = "bn." in blob
        ending = {"weight": "s" if is_bn else "w", "bias": "b", "running_mean": "rm", "running_var": "riv"}
        layer, tensor_name = blob.rsplit(".", 1)
        blobs[f"{layer}_{ending[tensor_name]}"] = tensor
    assert blobs.keys() <= random_state(BLOBS).keys()
    port = converted_tensors(tmp_path / "port.pth", name=CAFFE2)
    caffe2 = converted_tensors(save_caffe2(tmp_path / "blobs.pkl", blobs), name=CAFFE2)
    assert all(torch.equal(tensor, caffe2[name]) for name, tensor in port.items())


@pytest.mark.parametrize("protocol", [2, 4])
def test_blobs_in_any_byte_order_and_protocol(protocol: int, tmp_path: Path) -> None:
    state = random_state(BLOBS)
    arrays: dict[str, object] = {name: tensor.numpy().astype(">f4") for name, tensor in state.items()}
    arrays |= {"lr": np.float32(0.01), "model_iter": 400_000}
    (tmp_path / "blobs.pkl").write_bytes(pickle.dumps({"blobs": arrays}, protocol=protocol))
    tensors = converted_tensors(tmp_path / "blobs.pkl", name=CAFFE2)
    assert torch.equal(tensors["stem.conv.weight"], state["conv1_w"])


@pytest.mark.parametrize("zipped", [True, False])
def test_old_and_new_files_of_pytorch(zipped: bool, tmp_path: Path, mmaction2_state: dict[str, Tensor]) -> None:
    torch.save({"state_dict": mmaction2_state}, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    assert torch.equal(
        converted_tensors(tmp_path / "weights.pth", name=DOT)["fc.bias"], mmaction2_state["cls_head.fc_cls.bias"]
    )


def test_a_training_log_of_mmengine_is_passed_over(
    tmp_path: Path, mmaction2_state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    class HistoryBuffer:
        def __init__(self) -> None:
            self._log_history, self.last = np.arange(5.0), np.float64(3)
            self.statistics_methods = {"mean": HistoryBuffer.mean}

        def mean(self) -> None: ...

    module: Any = ModuleType("mmengine.logging.history_buffer")
    HistoryBuffer.__module__ = HistoryBuffer.mean.__module__ = module.__name__
    HistoryBuffer.__qualname__, HistoryBuffer.mean.__qualname__ = "HistoryBuffer", "HistoryBuffer.mean"
    module.HistoryBuffer = HistoryBuffer
    for name, part in (("mmengine", ModuleType("mmengine")), ("mmengine.logging", module), (module.__name__, module)):
        monkeypatch.setitem(sys.modules, name, part)
    hub = {"log_scalars": OrderedDict(loss=HistoryBuffer())}
    file = saved(tmp_path / "weights.pth", mmaction2_state, message_hub=hub, meta={})
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.delitem(sys.modules, name)
    assert convert_file(file, tmp_path / "out.safetensors", name=DOT).ignored == ("message_hub", "meta")


# ---- Fine-tuned networks


def test_labels_give_the_size_of_the_head(tmp_path: Path, mmaction2_state: dict[str, Tensor]) -> None:
    mmaction2_state["cls_head.fc_cls.weight"] = mmaction2_state["cls_head.fc_cls.weight"][:3].clone()
    mmaction2_state["cls_head.fc_cls.bias"] = mmaction2_state["cls_head.fc_cls.bias"][:3].clone()
    file, output = saved(tmp_path / "weights.pth", mmaction2_state), tmp_path / "out.safetensors"
    with pytest.raises(ModelError, match=r"is \(3, 256\) instead of \(400, 256\).*give its labels"):
        convert_file(file, output, name=DOT)
    converted = convert_file(file, output, name=DOT, labels=["run", "jump", "fall"])
    network, card = load_checkpoint(output)
    assert card == converted.card
    assert (card.labels, card.published, network.fc.out_features) == (("run", "jump", "fall"), None, 3)
    with pytest.raises(ModelError, match=r"fits 4 networks"):
        convert_file(file, output, labels=["run", "jump", "fall"])
    with pytest.raises(ModelError, match="same label twice"):
        convert_file(file, output, name=DOT, labels=["run", "run", "fall"])
    with pytest.raises(ModelError, match=r"is \(3, 256\) instead of \(2, 256\)"):
        convert_file(file, output, name=DOT, labels=["run", "jump"])


def test_3d_resnets_have_their_classes_in_their_own_order(tmp_path: Path) -> None:
    file, output = tmp_path / "weights.pth", tmp_path / "out.safetensors"
    state = random_state("kenshohara_r3d34_K700")
    torch.save({"arch": "resnet-34", "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, file)
    card = convert_file(file, output).card
    assert (card.name, card.labels[:2]) == ("r3d-34-k700-kenshohara", ("slicing onion", "jetskiing"))


# ---- Files that are something else


class Calls:
    """Pickles as a call of `os.system`."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("kind", ["torch", "old torch", "caffe2"])
def test_nothing_in_a_file_is_run(kind: str, tmp_path: Path) -> None:
    sentinel, file = tmp_path / "touched", tmp_path / "weights"
    content = {"blobs" if kind == "caffe2" else "state_dict": {"a": Calls(f"touch {sentinel}")}}
    if kind == "caffe2":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=kind == "torch")
    for read in (recognise, lambda file: convert_file(file, tmp_path / "out.safetensors", name=CAFFE2)):
        with pytest.raises(ModelError, match=r"(posix|nt)\.system"):
            read(file)
    assert not sentinel.exists()
    os.system(f"touch {sentinel}")
    assert sentinel.exists()  # so the command works


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"not weights", "is a text file"),
        (b"\x00\x01not weights", "neither a PyTorch file nor a pickle"),
        (b"PK\x03\x04 half a zip", "neither a PyTorch file nor a pickle"),
        (pickle.dumps([1, 2], protocol=2), "holds a list; a dict of tensors is needed"),
        (pickle.dumps({"blobs": {"conv1_w": "text"}}, protocol=2), "holds 'conv1_w', a str"),
        (pickle.dumps({"blobs": {}, "state_dict": {}}, protocol=2), "it is unclear which of them has the weights"),
    ],
)
def test_other_files(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        recognise(tmp_path / "file")


def test_damaged_files_of_pytorch(tmp_path: Path, mmaction2_state: dict[str, Tensor]) -> None:
    for zipped in (True, False):
        torch.save(mmaction2_state, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "whole.pth").read_bytes()
        (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ModelError, match=r"cannot be read as a PyTorch file|neither a PyTorch file nor a pickle"):
            recognise(tmp_path / "half.pth")


def test_safetensors_need_no_conversion(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="is used as it is"):
        recognise(tmp_path / "a.safetensors")


def test_wrong_paths_and_names(tmp_path: Path, mmaction2_state: dict[str, Tensor]) -> None:
    file = saved(tmp_path / "weights.pth", mmaction2_state)
    with pytest.raises(ModelError, match=r"Weights file .* not found"):
        convert_file(tmp_path / "nothing", tmp_path / "out.safetensors")
    with pytest.raises(ModelError, match="There is no folder"):
        convert_file(file, tmp_path / "nowhere" / "out.safetensors", name=DOT)
    with pytest.raises(ModelError, match="give the output another name"):
        convert_file(file, file, name=DOT)


def test_an_unknown_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nonlocal_video.zoo.catalogue import entry

    monkeypatch.setattr(convert, "entry", entry)
    torch.save({"a": torch.ones(1)}, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match="Did you mean i3d-nl-r50-8x8-k400-caffe2"):
        convert_file(tmp_path / "weights.pth", tmp_path / "out.safetensors", name="i3d-nl-r50-8x8-caffe2")
