"""Writes into docs/speed.md what was measured beside others, at the start, and in coarser arithmetic by OpenVINO.

python docs/make_comparison_tables.py

The results are benchmarks/results/{peers,imports,runtime_start,int8}.json. A table whose file is not there says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results"
GOALS = {"single": 2.0, "folder": 2.5}
"""Multiple of PyTorchVideo's speed that is the aim."""
NEEDED = {"same_top1": 0.97, "top1_in_top5": 0.99}
"""Agreement with float32 from which on a precision is offered."""
MODES = {
    "bf16": "bfloat16",
    "int8": "int8 in all layers",
    "int8_ends_float": "int8 but for the first and the last layer",
    "int8_controlled": "int8 with accuracy control",
}


def page_with_tables(text: str, results: Path = RESULTS) -> str:
    """The page's text with what stands between its markers as the results in a folder say."""
    tables: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
        "peers": ("peers", peers),
        "imports": ("imports", imports),
        "sizes": ("imports", sizes),
        "start": ("runtime_start", start),
        "batches": ("runtime_start", batches),
        "int8": ("int8", coarse),
    }
    for marker, (name, table) in tables.items():
        file = results / f"{name}.json"
        made = table(json.loads(file.read_text("utf-8"))) if file.exists() else "Not measured yet."
        text = re.sub(
            rf"<!-- {marker} -->\n.*?<!-- /{marker} -->",
            lambda _, marker=marker, made=made: f"<!-- {marker} -->\n{made}\n<!-- /{marker} -->",
            text,
            flags=re.DOTALL,
        )
    return text


def peers(results: dict[str, Any]) -> str:
    """Return the table of networks that run here and in other projects."""
    of_clip, of_folder = "a clip: theirs, s", "a folder: theirs, s a clip"
    rows = [["network", "beside", of_clip, "here, s", "speed", of_folder, "here, s", "speed", "what it leaves out"]]
    notes = []
    for name, case in results["cases"].items():
        if "error" in case:
            notes.append(f"{case['peer']} could not be run: `{case['error'].replace('`', '')}`.")
            continue
        cells = []
        for found in (case["single"], case["folder"]):
            low, high = found["smallest_and_largest"]
            cells += [
                f"{found['peer_seconds']:.2f}", f"{found['our_seconds']:.2f}",
                f"**x{found['ratio']:.2f}** ({low:.2f} to {high:.2f})",
            ]  # fmt: skip
        rows.append([f"`{name}`", case["peer"], *cells, case["leaves_out"]])
    return "\n\n".join(
        part for part in (_table(*rows) if rows[1:] else "", _measured(results), _aim(results), " ".join(notes)) if part
    )


def _measured(results: dict[str, Any]) -> str:
    """Describe how the peers were measured."""
    machine = results["machine"]
    versions = {
        package: version
        for case in results["cases"].values()
        for about in case.get("versions", {}).values()
        for package, version in about.items()
    }
    runtimes = " and ".join(sorted({case["our_runtime"] for case in results["cases"].values() if "error" not in case}))
    return (
        f"{results['num_clips']} clips, {results['rounds']} times each, both processes in turn after some warm-up, "
        f"{machine['threads']} threads on {_cores(results)}. Medians; the speeds are those of neighbouring "
        f"answers, with the smallest and the largest. `--runtime auto` ran {runtimes or 'nothing'} here. "
        f"{', '.join(f'{package} {version}' for package, version in sorted(versions.items()))}."
    )


def _aim(results: dict[str, Any]) -> str:
    """Whether the aim is reached."""
    case = results["cases"].get("slow_r50", {"error": ""})
    if "error" in case:
        return ""
    said = {
        kind: f"{'reached' if case[kind]['ratio'] >= goal else 'not reached'} (x{case[kind]['ratio']:.2f})"
        for kind, goal in GOALS.items()
    }
    return (
        f"The aim is {GOALS['single']:.1f} times PyTorchVideo's speed for clips that are asked one after another: "
        f"{said['single']}; and {GOALS['folder']:.1f} times for a folder: {said['folder']}."
    )


def imports(results: dict[str, Any]) -> str:
    """Return the table of what commands load, with the earlier version in turn."""
    rows = [["command", "before, s", "now, s", "modules before", "now", "of the packages below, now"]]
    for verb, of_tree in results["verbs"].items():
        other, this = of_tree["other"], of_tree["this"]
        rows.append(
            [
                f"`{verb}`", f"{other['seconds']:.1f}", f"{this['seconds']:.1f}", f"{other['modules']:,}",
                f"{this['modules']:,}", ", ".join(this["packages"]) or "none",
            ]
        )  # fmt: skip
    return (
        f"{_table(*rows)}\n\nA clip of ten small frames and a tiny network, in a process of its own, from its first "
        f"import to its end; medians of {results['runs']}, both versions in turn on {_cores(results)}. "
        f"Before is commit {results['other_commit'][:7]}."
    )


def sizes(results: dict[str, Any]) -> str:
    """Return the table of what packages cost that some commands load, or loaded once."""
    rows = [["package", "import after PyTorch, s", "its own files, MB"]]
    rows += [[name, f"{found['seconds']:.1f}", f"{found['mb']:,.0f}"] for name, found in results["packages"].items()]
    before, now = results["installation_mb"]["other"], results["installation_mb"]["this"]
    return (
        f"{_table(*rows)}\n\nA plain installation without what PyTorch brings is {now['without torch']:,.0f} MB; "
        f"before it was {before['without torch']:,.0f} MB. With PyTorch's build for CUDA, as pip installs it on Linux, "
        f"{now['all']:,.0f} MB."
    )


def start(results: dict[str, Any]) -> str:
    """The first answers of a process by each runtime."""
    measured = results["start"]
    rows = [["runtime", "first answer, s", "processor, s", "second answer, s", "processor, s"]]
    names = ("first_answer_seconds", "first_answer_cpu_seconds", "second_answer_seconds", "second_answer_cpu_seconds")
    found = {case: figures for case, figures in measured["cases"].items() if case != "entry_bytes"}
    rows += [[case, *(f"{figures[name]:.1f}" for name in names)] for case, figures in found.items()]
    by_torch, cached = (found[case]["first_answer_seconds"] for case in ("torch", "openvino, from the cache"))
    order = "earlier" if cached < by_torch else "later"
    return (
        f"{_table(*rows)}\n\nThe default model, one {measured['view']} view, in new processes in turn, after the "
        f"imports; medians of {measured['rounds']} on {_cores(measured)}. The cache's entry has "
        f"{measured['cases']['entry_bytes'] / 1e6:.0f} MB. From the cache OpenVINO's first answer came "
        f"{abs(by_torch - cached):.1f} s {order} than PyTorch's."
    )


def batches(results: dict[str, Any]) -> str:
    """Views by themselves and in a batch, files as well, and the network compiled by inductor."""
    measured = results["batches"]
    seconds = ["speed", "processor, s", "speed"]
    rows = [["view", "network run by", "s a view", *seconds]]
    for view, found in measured["cases"].items():
        rows += _speeds(view, found)
    folder = results["folder"]
    files = [["view", "a folder of files", "s a file", *seconds], *_speeds("fast", folder["cases"])]
    notes = [
        f"In turn, medians of {measured['rounds']} on {_cores(measured)}; speeds beside one view at a time.",
        f"In turn, medians of {folder['rounds']} on {_cores(folder)}; one decoding process beside the network.",
    ]
    inductor = results["compile"]
    if "refused" in inductor:
        notes.append(f"`torch.compile` could not be run: `{inductor['refused']}`.")
    else:
        by_torch, found = (inductor["cases"][case]["seconds"] for case in ("torch", "torch.compile"))
        first = inductor["cases"]["torch.compile, first"]["seconds"]
        notes.append(
            f"Compiled by `torch.compile` a fast view takes {found:.2f} s where it takes {by_torch:.2f} s otherwise, "
            f"and the first {first:.0f} s: medians of {inductor['rounds']} on {_cores(inductor)}."
        )
    tables = [f"{_table(*of)}\n\n{note}" for of, note in zip((rows, files), notes, strict=False)]
    return "\n\n".join([*tables, *notes[2:]])


def _speeds(view: str, found: dict[str, Any]) -> list[list[str]]:
    """Rows of what was measured some at a time, beside one at a time."""
    rows = []
    for case, figures in found.items():
        if not case.endswith(", first"):
            single = found[f"{case.partition(',')[0]}, 1 at a time"]
            names = ("seconds", "cpu_seconds")
            cells = [(f"{figures[name]:.2f}", f"x{single[name] / figures[name]:.2f}") for name in names]
            rows.append([view, case, *(cell for pair in cells for cell in pair)])
    return rows


def coarse(results: dict[str, Any]) -> str:
    """Whether coarser arithmetic by OpenVINO answers like float32."""
    agreement = [
        "same top-1",
        "where float32 gives 0.5 or more",
        "float32's top-1 among the first five",
        "same first five",
    ]
    rows = [["arithmetic", "view", "quantised layers", *agreement, "logits differ, median and largest", "speed"]]
    passing: list[str] = []
    unsure: list[str] = []
    for view, of_view in results.items():
        for mode, name in MODES.items():
            found = of_view["modes"].get(mode, {})
            if "clips" not in found:
                continue
            layers = f"{found['quantised_layers']} of {found['layers']}" if mode != "bf16" else ""
            shares = [_share(found[kind], found["clips"]) for kind in ("same_top1", "top1_in_top5", "same_top5")]
            shares.insert(1, f"{found['where_sure']['same_top1']} of {found['where_sure']['clips']}")
            differ = f"{found['logits']['median']:.1%}, {found['logits']['largest']:.0%}"
            rows.append([name, view, layers, *shares, differ, f"x{found['cpu_speed']:.2f}"])
            if view == "fast" and all(found[kind]["count"] / found["clips"] >= least for kind, least in NEEDED.items()):
                surely = all(found[kind]["interval"][0] >= least for kind, least in NEEDED.items())
                passing.append(name)
                unsure += [] if surely else [name]
    fast = results["fast"]
    machine = fast["machine"]
    missing = [name for mode, name in MODES.items() if "clips" not in fast["modes"].get(mode, {})]
    not_yet = f"Not measured yet: {_and(missing)}. " if missing else ""
    below = f" The intervals of {_and(unsure)} reach below the rule." if unsure else ""
    return (
        f"{_table(*rows)}\n\n{not_yet}The default model on unlabelled clips, one view each; in brackets 95% intervals "
        f"(Clopper-Pearson). For int8 {fast['calibration']} other clips are for the calibration and {fast['control']} "
        f"for the accuracy control. Speed is the processor time of OpenVINO's float32 divided by that of the "
        f"same view, medians of {fast['rounds']} in turn, on {_cores(fast)} "
        f"({', '.join(machine['instructions']) or 'no instructions for coarse arithmetic'}); openvino "
        f"{fast['openvino']}, nncf {fast['nncf']}.\n\nThe rule: top-1 agreement of at least {NEEDED['same_top1']:.0%}, "
        f"and float32's top-1 among the first five for at least {NEEDED['top1_in_top5']:.0%} of the clips at the fast "
        f"view. {_and(passing) or 'Nothing'} passed.{below}"
    )


def _and(names: list[str]) -> str:
    return " and ".join([part for part in (", ".join(names[:-1]), *names[-1:]) if part])


def _share(found: dict[str, Any], total: int) -> str:
    low, high = found["interval"]
    return f"{found['count'] / total:.1%} of {total} ({low:.1%} to {high:.1%})"


def _cores(results: dict[str, Any]) -> str:
    """The machine, and what else it had to do."""
    machine = results["machine"]
    before, after = results.get("load_average", results.get("load_of_the_machine"))
    return f"{machine['cores']} cores of {machine['processor']} (load average {before:.1f} before, {after:.1f} after)"


def _table(*rows: list[str]) -> str:
    head, *body = rows
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *body])


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text("utf-8")), "utf-8")
