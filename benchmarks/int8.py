"""Whether int8 and bfloat16 by OpenVINO answer like float32: the default model on unlabelled clips.

    python benchmarks/int8.py CLIPS --work DIR --output benchmarks/results/int8.json

It needs nncf beside the project (`pip install nncf`). CLIPS is a folder of varied clips. Some are drawn for the
calibration, others for the accuracy control, and the agreement is counted on the rest. DIR keeps the network's inputs
(19 MB a clip at the fast view), the quantised networks and the logits, so that a run that was cut off continues.

- `bf16`: OpenVINO's inference precision `bf16`. It is faster on CPUs that have such arithmetic only.
- `int8`: NNCF's post-training quantisation of all convolutions and products; averages stay float32.
- `int8_ends_float`: the same with the first and the last of them in float32 again.
- `int8_controlled`: the same with as many parts in float32 again as the rule's top-1 agreement needs on the control
  clips. The parts are the layers of the stem, the nine modules and the classifier; those that bring the logits nearest
  to float32's come first.

`--seconds-only` measures the seconds a view again and keeps the agreement. docs/speed.md is made from the file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from functools import cache
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import beta

import nonlocal_video as nlv
from nonlocal_video.benchmark.machine import describe_machine
from nonlocal_video.inference.runtimes.openvino import convert, import_openvino
from nonlocal_video.inference.runtimes.traceable import PlaceLogits, trace, traceable

Array = NDArray[np.float32]
NEEDED = {"same_top1": 0.97, "top1_in_top5": 0.99}
"""Agreement with float32 from which on a precision is offered."""
SURE = 0.5
"""Score of float32's first class from which on its answer counts as sure."""
MODES = ("float32", "bf16", "int8", "int8_ends_float", "int8_controlled")
LAYERS = ("Convolution", "GroupConvolution", "MatMul")
"""OpenVINO's operations that are quantised."""
PASSING = ("Add", "Concat", "MaxPool", "Pad", "ReduceMean", "Relu", "Slice", "Unsqueeze")
"""Operations in front of which NNCF may quantise a value for the layers behind."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for inputs, networks and logits")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--view", choices=["fast", "full"], default="fast")
    parser.add_argument("--calibration", type=int, default=100, help="clips for the ranges of values")
    parser.add_argument("--control", type=int, default=50, help="clips for the accuracy control")
    parser.add_argument("--clips-at-most", type=int, help="clips for the agreement; all others by default")
    parser.add_argument("--modes", nargs="+", choices=MODES[1:], default=list(MODES[1:]))
    parser.add_argument("--rounds", type=int, default=10, help="views of each mode, in turn, for the seconds")
    parser.add_argument("--ranked-by", type=int, default=4, help="control clips by which the parts are ranked")
    parser.add_argument("--seconds-only", action="store_true")
    options = parser.parse_args()
    folder = options.work / options.view
    paths = sorted(path for path in options.clips.iterdir() if path.is_file())
    random.Random(0).shuffle(paths)
    with nlv.load(device="cpu", runtime="torch") as recognizer:
        files = inputs_of(recognizer, paths, folder, fast=options.view == "fast")
        float_network(recognizer, folder / "float32.xml", files[0])
    first, second = options.calibration, options.calibration + options.control
    calibration, control, counted = files[:first], files[first:second], files[second:][: options.clips_at_most]
    modes = ["float32", *options.modes]
    results = json.loads(options.output.read_text("utf-8")) if options.output.exists() else {}
    of_view = results.setdefault(options.view, {"modes": {}})
    if not options.seconds_only:
        of_view |= {"calibration": len(calibration), "control": len(control), "nncf": metadata.version("nncf")}
        exact = logits_of("float32", folder, counted)
        for mode in options.modes:
            quantised(mode, folder, calibration, control, options.ranked_by)
            found = agreement(logits_of(mode, folder, counted), exact)
            of_view["modes"].setdefault(mode, {}).update(found | layers_of(mode, folder))
            options.output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
            print(mode, found, flush=True)
    load_before = os.getloadavg()[0]
    for mode, seconds in seconds_of(modes, folder, counted[0], options.rounds).items():
        of_view["modes"].setdefault(mode, {}).update(seconds)
    of_view |= {
        "rounds": options.rounds,
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "machine": describe_machine() | {"instructions": instructions()},
        "openvino": metadata.version("openvino"),
    }
    options.output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def inputs_of(recognizer: nlv.Recognizer, paths: list[Path], folder: Path, *, fast: bool) -> list[Path]:
    """Write the network's input for each clip that can be read, unless it is there; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for path in paths:
        file = folder / f"{path.stem}.npy"
        if not file.exists():
            try:
                view = recognizer.preprocess(path, fast=fast)
            except nlv.VideoError as error:
                print(f"{path.name}: {error}", file=sys.stderr)
                continue
            part = file.with_suffix(".part.npy")
            np.save(part, view.numpy())
            part.rename(file)
        files.append(file)
    return files


def float_network(recognizer: nlv.Recognizer, file: Path, example: Path) -> None:
    """Write the network as OpenVINO's runtime has it, with the logits as its only output."""
    if file.exists():
        return
    shape = np.load(example, mmap_mode="r").shape
    with torch.no_grad():
        network = traceable(recognizer.network, for_pytorch=False)[0].eval().requires_grad_(False)
        model = convert(trace(PlaceLogits(network, recognizer.card).eval(), shape), shape)
    import_openvino().save_model(model, file, compress_to_fp16=False)


@cache
def core() -> Any:
    """Return the only core of the process; ending a second one can kill it (see the runtime)."""
    return import_openvino().Core()


def compiled(model: Any, mode: str) -> Any:
    """Compile a network as the project's runtime does, in bfloat16 for that mode."""
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if mode == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,
    }
    return core().compile_model(model, "CPU", settings)


def network_file(mode: str, folder: Path) -> Path:
    """Return the file of a mode's network; bfloat16 is a setting, not a network."""
    return folder / f"{'float32' if mode == 'bf16' else mode}.xml"


def quantised(mode: str, folder: Path, calibration: list[Path], control: list[Path], ranked_by: int) -> None:
    """Write the quantised network of a mode unless it is there."""
    file = network_file(mode, folder)
    if file.exists():
        return
    exact = core().read_model(folder / "float32.xml")
    if mode == "int8":
        import nncf

        data = nncf.Dataset(calibration, np.load)
        averages = nncf.IgnoredScope(types=["ReduceMean"])  # of features, and of the logits themselves
        found = nncf.quantize(exact, data, subset_size=len(calibration), ignored_scope=averages)
        import_openvino().save_model(found, file, compress_to_fp16=False)
        return
    quantised("int8", folder, calibration, control, ranked_by)
    model = core().read_model(network_file("int8", folder))
    layers = [layer.get_friendly_name() for layer in layers_in(exact)]
    back = [layers[0], layers[-1]]
    if mode == "int8_controlled":
        back = controlled(model, exact, layers, control, logits_of("float32", folder, control), ranked_by)
    import_openvino().save_model(float_again(model, exact, back), file, compress_to_fp16=False)


def controlled(
    model: Any, exact: Any, layers: list[str], control: list[Path], logits: Array, ranked_by: int
) -> list[str]:
    """Return the layers that have to be in float32 for the agreement that is needed, on the control clips."""
    parts = [[layer] for layer in layers[:3]]
    parts += [layers[first : min(first + 6, len(layers) - 1)] for first in range(3, len(layers) - 1, 6)]
    parts.append(layers[-1:])
    errors = []
    for part in parts:
        network = compiled(float_again(model, exact, part), "int8")
        found = [np.array(network(np.load(file))[0]).reshape(-1) for file in control[:ranked_by]]
        errors.append(float(np.square(np.stack(found) - logits[:ranked_by]).mean()))
        print(f"part {len(errors)} of {len(parts)} in float32: {errors[-1]:.4f}", flush=True)
    order = [parts[number] for number in np.argsort(errors)]
    too_few, enough = 0, len(parts)
    while enough - too_few > 1:
        tried = (too_few + enough) // 2
        network = compiled(float_again(model, exact, list(chain(*order[:tried]))), "int8")
        found = [np.array(network(np.load(file))[0]).argmax() for file in control]
        same = float(np.mean(found == logits.argmax(1)))
        print(f"{tried} of {len(parts)} parts in float32: {same:.1%}", flush=True)
        too_few, enough = (too_few, tried) if same >= NEEDED["same_top1"] else (tried, enough)
    return list(chain(*order[:enough]))


def layers_in(model: Any) -> list[Any]:
    """Return the convolutions and products of a network, in the order in which they are computed."""
    return [node for node in model.get_ordered_ops() if node.get_type_name() in LAYERS]


def float_again(model: Any, exact: Any, names: list[str]) -> Any:
    """Return a copy of a quantised network in which some layers are float32's, with the values that they are given.

    What quantises a value for them does so for others as well; these have coarse weights still, but compute in float32.
    """
    model = model.clone()
    originals = {node.get_friendly_name(): node for node in exact.get_ordered_ops()}
    for layer in layers_in(model):
        if layer.get_friendly_name() not in names:
            continue
        after = [value.get_node() for value in layer.output(0).get_target_inputs()]
        for node in (
            layer,
            *(node for node in after if node.get_type_name() == "Add"),
        ):  # weights, and corrected biases
            original = originals[node.get_friendly_name()]
            for place, value in enumerate(original.input_values()):
                if value.get_node().get_type_name() == "Constant":
                    constant = import_openvino().opset13.constant(value.get_node().data)
                    node.input(place).replace_source_output(constant.output(0))
        values = [layer.input(0)]
        while values:
            value = values.pop()
            source = value.get_source_output().get_node()
            if source.get_type_name() == "FakeQuantize":
                value.replace_source_output(source.input_value(0))
                values.append(value)
            elif source.get_type_name() in PASSING:
                values += source.inputs()
    model.validate_nodes_and_infer_types()
    return model


def logits_of(mode: str, folder: Path, files: list[Path]) -> Array:
    """Return a mode's logits (N, classes) of inputs; they are kept in a file."""
    kept = folder / f"{mode}.npz"
    found: dict[str, Array] = dict(np.load(kept)) if kept.exists() else {}
    missing = [file for file in files if file.stem not in found]
    if missing:
        network = compiled(network_file(mode, folder), mode)
        for number, file in enumerate(missing):
            found[file.stem] = np.array(network(np.load(file))[0]).reshape(-1)
            if number % 10 == 9 or file == missing[-1]:
                np.savez(kept, **found)
                print(f"{mode}: {number + 1} of {len(missing)}", flush=True)
    return np.stack([found[file.stem] for file in files])


def agreement(found: Array, exact: Array) -> dict[str, Any]:
    """Return how often two sets of logits (N, classes) give the same answers, with 95% intervals.

    `top1_in_top5` is whether float32's first class is among the first five, as top-5 accuracy would be counted;
    `same_top5` whether the first five are the same classes.
    """
    first, five = exact.argmax(1), np.argsort(-found, axis=1)[:, :5]
    five_exact = np.argsort(-exact, axis=1)[:, :5]
    cases = {
        "same_top1": five[:, 0] == first,
        "top1_in_top5": (five == first[:, None]).any(1),
        "same_top5": (np.sort(five, axis=1) == np.sort(five_exact, axis=1)).all(1),
    }
    sure = softmax(exact, axis=1).max(1) >= SURE
    errors = np.abs(found - exact).max(1) / np.abs(exact).max(1)
    return {
        "clips": len(exact),
        **{
            name: {"count": int(same.sum()), "interval": interval(int(same.sum()), len(same))}
            for name, same in cases.items()
        },
        "where_sure": {"clips": int(sure.sum()), "same_top1": int(cases["same_top1"][sure].sum())},
        "logits": {"median": float(np.median(errors)), "largest": float(errors.max())},
    }


def interval(count: int, total: int) -> list[float]:
    """Return the 95% interval of a share (Clopper-Pearson)."""
    low = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return [round(float(low), 4), round(float(high), 4)]


def layers_of(mode: str, folder: Path) -> dict[str, int]:
    """Return how many convolutions and products a network has, and how many of them have weights of eight bits."""
    layers = layers_in(core().read_model(network_file(mode, folder)))
    return {"layers": len(layers), "quantised_layers": sum(map(has_coarse_weights, layers))}


def has_coarse_weights(layer: Any) -> bool:
    """Return whether a layer's weights are kept in eight bits, or rounded to them."""
    node = layer.input_value(1).get_node()
    while node.get_type_name() in ("Multiply", "Subtract", "Convert"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "FakeQuantize" or node.get_element_type().get_type_name() in ("i8", "u8")


def seconds_of(modes: list[str], folder: Path, file: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """Return medians of the seconds a view, by the clock and of the processors, with all modes in turn."""
    networks = {mode: compiled(network_file(mode, folder), mode) for mode in modes}
    view = np.load(file)
    taken: dict[str, list[tuple[float, float]]] = {mode: [] for mode in modes}
    for number in range(1 + rounds):
        for mode, network in networks.items():
            started, processor = time.perf_counter(), time.process_time()
            network(view)
            if number:  # the first may wait for memory
                taken[mode].append((time.perf_counter() - started, time.process_time() - processor))
    return {
        mode: {
            "seconds": round(statistics.median(wall for wall, _ in found), 4),
            "cpu_seconds": round(statistics.median(cpu for _, cpu in found), 4),
            "speed": round(statistics.median(e[0] / f[0] for e, f in zip(taken["float32"], found, strict=True)), 3),
            "cpu_speed": round(statistics.median(e[1] / f[1] for e, f in zip(taken["float32"], found, strict=True)), 3),
        }
        for mode, found in taken.items()
    }


def instructions() -> list[str]:
    """Return the processor's instructions for coarse arithmetic."""
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8").split()
    except OSError:
        return []
    return [name for name in ("avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8") if name in flags]


if __name__ == "__main__":
    main()
