"""Writes the measured tables of docs/speed.md from benchmarks/results.

python docs/make_speed_tables.py
"""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results" / "model_cpu.json"
PRECISION = ROOT / "benchmarks" / "results" / "precision.json"
VERSIONS = ROOT / "benchmarks" / "results" / "two_versions.json"
SCALING = ROOT / "benchmarks" / "results" / "scaling.json"
WAYS = {
    "eager": "PyTorch, the network as it was trained",
    "torch": "PyTorch, as `--runtime torch` runs it",
    "openvino": "`--runtime openvino`",
}


def page_with_tables(text: str) -> str:
    """The page's text with what stands between its markers as the results say."""
    results = json.loads(RESULTS.read_text("utf-8"))
    of_precision = json.loads(PRECISION.read_text("utf-8"))
    of_versions = json.loads(VERSIONS.read_text("utf-8"))
    of_scaling = json.loads(SCALING.read_text("utf-8"))
    tables = (
        ("views", views(results)),
        ("folder", folder(results)),
        ("precision", precision(of_precision)),
        ("versions", versions(of_versions)),
        ("growth", growth(of_scaling["files"])),
        ("cores", by_cores(of_scaling["cores"])),
    )
    for marker, table in tables:
        text = re.sub(
            rf"<!-- {marker} -->\n.*?<!-- /{marker} -->",
            lambda _, marker=marker, table=table: f"<!-- {marker} -->\n{table}\n<!-- /{marker} -->",
            text,
            flags=re.DOTALL,
        )
    return text


def versions(results: dict[str, Any]) -> str:
    """Two versions of the project in turn."""
    names = {
        "folder": {"seconds": "a folder, by the clock", "cpu_seconds": "a folder, processor time"},
        "timeline": {"seconds": "a timeline, by the clock", "cpu_seconds": "a timeline, processor time"},
        "clip": {"seconds": "one clip, by the clock", "cpu_seconds": "one clip, processor time"},
        "maps": {"seconds": "maps of one clip, by the clock", "cpu_seconds": "maps of one clip, processor time"},
        "page": {
            "scores_seconds": "the page, until the scores",
            "overlay_seconds": "the page, until the overlay plays",
        },
    }
    rows = [["", "before, s", "now, s", "ratio", "each pair's", "slowest before, now"]]
    for case, figures in names.items():
        for key, name in figures.items() if case in results["cases"] else ():
            found = results["cases"][case][key]
            pairs = ", ".join(f"{ratio:.2f}" for ratio in found["ratios"])
            slowest = ", ".join(f"{found['slowest'][version]:.1f}" for version in ("other", "this"))
            medians = [f"{found[version]:.1f}" for version in ("other", "this")]
            rows.append([name, *medians, f"x{found['ratio']:.2f}", pairs, slowest])
    machine = results["machine"]
    return (
        f"{_table(*rows)}\n\n{results['num_clips']} clips, one video of {results['video_seconds']} s, the page's clip "
        f"of 10 s; each version {results['runs']} times after one that does not count, "
        f"on {machine['cores']} cores of {machine['processor']} (load average "
        f"{results['load_of_the_machine_before']:.1f} before). Before is commit "
        f"{results['other_commit'][:7]}, now "
        f"{results['this_commit'][:7]}; the default runtime was `{results['runtimes']['other']}` before and "
        f"is `{results['runtimes']['this']}` now."
    )


def growth(results: dict[str, Any]) -> str:
    """Folder runs of more and more files."""
    rows = [
        [
            "files", "until the first row, s", "then a file, ms", "processor, ms a file", "after the last row, s",
            "command's peak, MiB", "a decoding process's", "table, KB", "journal, KB", "`--resume`, s", "its peak, MiB",
        ]
    ]  # fmt: skip
    for size in results["sizes"]:
        resume = size["resume"]
        rows.append(
            [
                f"{size['files']:,}", f"{size['start_seconds']:.1f}", f"{1000 * size['seconds_a_file']:.0f}",
                processor(results["sizes"][0], size), f"{size['end_seconds']:.1f}", f"{size['peak_mib']:.0f}",
                f"{size['child_peak_mib']:.0f}", f"{size['table_bytes'] / 1000:,.0f}",
                f"{size['journal_bytes'] / 1000:,.0f}", f"{resume['seconds']:.1f}", f"{resume['peak_mib']:.0f}",
            ]
        )  # fmt: skip
    several = [size for size in results["sizes"] if size["runs"] > 1]
    return (
        f"{_table(*rows)}\n\nClips of 1 s and {results['clip_bytes'] / 1000:.0f} KB, a tiny network, one decoding "
        f"process at a time, `--output TABLE.parquet`; medians of {several[0]['runs']} runs up to "
        f"{several[-1]['files']:,} files, then one. Processor time is what a run took more than that of "
        f"{results['sizes'][0]['files']} files, by the files more. {_machine(results)}"
    )


def processor(smallest: dict[str, Any], size: dict[str, Any]) -> str:
    """Return the processor time that each file more than those of the smallest run took, ms; empty for that run."""
    more = size["files"] - smallest["files"]
    return f"{1000 * (size['cpu_seconds'] - smallest['cpu_seconds']) / more:.0f}" if more else ""


def by_cores(results: dict[str, Any]) -> str:
    """The same clips on 1 and 2 cores."""
    rows = [["runtime", "cores", "a clip, s", "each round's", "processor, s", "speed against 1 core"]]
    cases = {(case["runtime"], case["cores"]): case["runs"] for case in results["cases"]}
    for (runtime, cores), runs in cases.items():
        seconds, alone = ([run["seconds_a_file"] for run in some] for some in (runs, cases[runtime, 1]))
        ratio = statistics.median(one / many for one, many in zip(alone, seconds, strict=True))
        cpu = statistics.median(run["cpu_seconds"] for run in runs) / results["clips"]
        each = ", ".join(f"{one:.2f}" for one in seconds)
        rows.append(
            [f"`{runtime}`", str(cores), f"{statistics.median(seconds):.2f}", each, f"{cpu:.1f}", f"x{ratio:.2f}"]
        )
    return (
        f"{_table(*rows)}\n\nThe default model, {results['clips']} clips, after the first; all cases in turn, "
        f"{results['rounds']} times after one that does not count, OpenVINO from its cache. Processor time is the "
        f"whole command's, by the clips. {_machine(results)}"
    )


def _machine(results: dict[str, Any]) -> str:
    machine, (before, after) = results["machine"], results["load_average"]
    return (
        f"{machine['cores']} cores of {machine['processor']} (load average {before:.1f} before, {after:.1f} after), "
        f"commit {results['commit'][:7]}."
    )


def precision(results: dict[str, Any]) -> str:
    """Return the table of what coarser arithmetic does to answers and maps."""
    names = {
        "tf32": "`tf32`, emulated, rounded to the nearest",
        "tf32_cut_off": "`tf32`, emulated, cut off",
        "bf16": "`bf16`",
    }
    rows = [["", "logits", "scores", "evidence map", "attention map", "same top-1", "same top-5 in order"]]
    for mode, name in names.items():
        found = results["summary"][mode]
        largest = [f"{found[key]['largest']:.1e}" for key in ("logits", "score", "evidence", "attention")]
        same = [f"{found[key]} of {found['clips']}" for key in ("same_top1", "same_top5")]
        rows.append([name, *largest, *same])
    exact = results["summary"]["bf16"]
    right = ", ".join(f"{results['summary'][mode]['right']} ({mode})" for mode in names)
    return (
        f"{_table(*rows)}\n\nLargest differences from float32 over {exact['clips']} labelled clips of actions of "
        f"Kinetics-400, the default model, one full view each: of logits and maps as a share of the largest, of scores "
        f"as they are. Right were {exact['right_in_float32']} answers in float32, {right}. "
        f"Few clips: of {exact['clips']} all may agree where the true share is {0.025 ** (1 / exact['clips']):.0%} "
        f"(95%, Clopper-Pearson)."
    )


def views(results: dict[str, Any]) -> str:
    """The network alone."""
    network = results["network"]
    rows = [["view", "the network run by", "s a view", "middle half", "speed against `torch`", "first view, s"]]
    for row in network["rows"]:
        low, high = row["quartiles_of_seconds_per_view"]
        rows.append(
            [
                f"{row['view']}, {row['num_frames']} x {row['crop']} x {row['crop']}", WAYS[row["runtime"]],
                f"{row['seconds_per_view']:.2f}", f"{low:.2f} to {high:.2f}",
                f"x{speed(results, row['view'], row['runtime']):.2f}", f"{row['seconds_of_first_pass']:.1f}",
            ]
        )  # fmt: skip
    machine = network["machine"]
    return (
        f"{_table(*rows)}\n\nThe default model, one view at a time, float32, {network['threads']} threads on "
        f"{machine['cores']} cores of {machine['processor']} ({machine['vector_instructions']}), torch "
        f"{machine['torch']}, openvino {network['openvino']}. Medians of {network['rounds']} turns; the speeds are "
        f"medians of the turns' own ratios. The machine had other work (load average "
        f"{results['load_average_before']:.1f} before, {results['load_average_after']:.1f} after), over which this had "
        f"priority (niceness {results['niceness']}). {_worth(results)}"
    )


def speed(results: dict[str, Any], view: str, runtime: str) -> float:
    """Return how many views it does while PyTorch, as `classify` runs it, does one."""
    seconds = _seconds(results, view)
    return statistics.median(torch / other for torch, other in zip(seconds["torch"], seconds[runtime], strict=True))


def folder_speed(results: dict[str, Any], view: str) -> float:
    """Return how many clips of a folder OpenVINO does while PyTorch does one."""
    taken = {
        runtime: [run["seconds"]["both"][0] for run in _runs(results, view, runtime)]
        for runtime in ("torch", "openvino")
    }
    return statistics.median(torch / other for torch, other in zip(taken["torch"], taken["openvino"], strict=True))


def folder(results: dict[str, Any]) -> str:
    """The folder run: decoding beside the network."""
    rows = [["view", "runtime", "decoding alone, clips/s", "network alone", "the folder run", "speed against `torch`"]]
    for view in ("full", "fast"):
        for runtime in ("torch", "openvino"):
            runs = _runs(results, view, runtime)
            rates = [
                statistics.median(run["files_per_second"][part] for run in runs)
                for part in ("decode_only", "network_only", "both")
            ]
            ratio = folder_speed(results, view) if runtime == "openvino" else 1
            rows.append([view, f"`{runtime}`", *(f"{rate:.2f}" for rate in rates), f"x{ratio:.2f}"])
    first = results["folders"][0]
    return (
        f"{_table(*rows)}\n\n{first['files']} clips, {first['workers']} decoding process beside the network, after the "
        f"first clip; medians of {len(_runs(results, 'full', 'torch'))} turns."
    )


def _worth(results: dict[str, Any]) -> str:
    """Return the number of views from which the start is paid for."""
    found = []
    for view in ("full", "fast"):
        seconds = {runtime: statistics.median(of_one) for runtime, of_one in _seconds(results, view).items()}
        (first,) = [row["seconds_of_first_pass"] for row in _rows(results, view) if row["runtime"] == "openvino"]
        saved = seconds["torch"] - seconds["openvino"]
        found.append(math.ceil((first - seconds["openvino"]) / saved))
    return f"The start was paid for after {found[0]} full or {found[1]} fast views."


def _rows(results: dict[str, Any], view: str) -> list[dict[str, Any]]:
    return [row for row in results["network"]["rows"] if row["view"] == view]


def _seconds(results: dict[str, Any], view: str) -> dict[str, list[float]]:
    return {row["runtime"]: row["seconds"] for row in _rows(results, view)}


def _runs(results: dict[str, Any], view: str, runtime: str) -> list[dict[str, Any]]:
    return [run for run in results["folders"] if (run["view"], run["runtime"]) == (view, runtime)]


def _table(*rows: list[str]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text("utf-8")), "utf-8")
