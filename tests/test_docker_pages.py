"""README and docs/docker.md say of the image what the image's files say; no engine is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from dockerfile import FINAL, ROOT, arguments, only

from nonlocal_video.app.application import DEFAULT_MAX_UPLOAD_MB
from nonlocal_video.app.graceful_shutdown import DRAIN_WITHIN_SECONDS

pytestmark = pytest.mark.slow

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
PAGE = (ROOT / "docs" / "docker.md").read_text("utf-8")
GUIDE = (ROOT / "docs" / "http_api.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")


def commands_of(text: str) -> list[str]:
    """The `docker run` commands of a page, their lines joined."""
    joined = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    return [line[line.index("docker run") :] for line in joined.splitlines() if "docker run" in line]


class TestPages:
    @pytest.mark.parametrize("page", [README, PAGE])
    def test_a_folder_that_is_written_to_belongs_to_who_writes(self, page: str) -> None:
        joined = page.replace("\\\n", " ")
        writing = [command for command in commands_of(page) if re.search(r'-v "\$PWD/\w+:/results"', command)]
        assert writing
        for command in writing:
            assert '--user "$(id -u):$(id -g)"' in command
            (folder,) = re.findall(r'-v "\$PWD/(\w+):/results"', command)
            assert re.search(rf"mkdir -p {folder}\b", joined[: joined.index(command)])

    @pytest.mark.parametrize("page", [README, PAGE])
    def test_the_page_is_for_this_machine_unless_a_password_is_asked(self, page: str) -> None:
        published = [command for command in commands_of(page) if re.search(r" -p ", command)]
        assert published
        for command in published:
            assert " -p 127.0.0.1:7860:7860 " in command or "--auth" in command

    def test_the_guide_to_the_api_starts_it_where_its_examples_ask(self) -> None:
        (started,) = [line for line in GUIDE.splitlines() if line.startswith("docker run ")]
        (address,) = set(re.findall(r"http://([\d.]+:\d+)", GUIDE))
        assert f" -p {address}:{only(FINAL, 'EXPOSE')} nonlocal-video:cpu" in started

    def test_docker_waits_for_as_long_as_the_server_takes_to_end(self) -> None:
        (stopping,) = re.findall(r"^\*\*Stopping\.\*\*.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
        assert f"for up to {DRAIN_WITHIN_SECONDS} seconds" in stopping
        (longest,) = re.findall(r"within (\d+) seconds", stopping)
        assert int(longest) == 15
        given = re.findall(r"--(?:stop-timeout|time) (\d+)", PAGE)
        assert len(given) == 2
        assert all(int(seconds) > int(longest) for seconds in given)

    def test_training_has_more_shared_memory_than_docker_gives(self) -> None:
        training = [command for command in commands_of(PAGE) if re.search(r" train /", command)]
        assert training
        assert all(re.search(r"--shm-size \d+g", command) for command in training)

    def test_it_says_what_no_gpu_has_seen(self) -> None:
        assert "not yet run on a GPU" in PAGE

    def test_the_default_build_has_a_row_in_the_table_of_drivers(self) -> None:
        rows = dict(re.findall(r"^\| `(cu\d+)` \| [\d.]+ \| (\d+) \|", PAGE, re.MULTILINE))
        assert set(re.findall(r"TORCH=(cu\d+)", PAGE + README)) <= rows.keys()
        (by_compose,) = re.findall(r"cu\d+", COMPOSE["services"]["page-gpu"]["build"]["args"]["TORCH"])
        assert rows[by_compose] == "580"

    def test_architectures_are_the_installed_builds(self) -> None:
        import torch

        if torch.version.cuda is None or torch.__version__.partition("+")[0] != arguments()["TORCH_VERSION"]:
            pytest.skip("another build of PyTorch")
        assert f"`{torch._C._cuda_getArchFlags()}`" in PAGE

    def test_words_of_the_program_are_its_words(self) -> None:
        from nonlocal_video.inference.runtimes import device

        source = Path(device.__file__).read_text("utf-8")
        for words in re.findall(r"\| `([^`]+)` \(the program's words\)", PAGE):
            pieces = words.replace("/dev/nvidia0", "{").replace("torch ...", "{").split("{")
            assert all(piece.strip(" ,") in source for piece in pieces), words

    def test_the_proxies_let_uploads_and_streams_through(self) -> None:
        (nginx,) = re.findall(r"```nginx\n(.*?)```", PAGE, re.DOTALL)
        (caddy,) = re.findall(r"```caddy\n(.*?)```", PAGE, re.DOTALL)
        for limit in (re.search(r"client_max_body_size (\d+)m;", nginx), re.search(r"max_size (\d+)MiB", caddy)):
            assert limit
            assert int(limit[1]) > DEFAULT_MAX_UPLOAD_MB
        assert re.search(r"^ *proxy_buffering off;", nginx, re.MULTILINE)
        assert re.search(r"^ *proxy_set_header X-Forwarded-Proto \$scheme;", nginx, re.MULTILINE)
        for text in (nginx, caddy):
            assert f"127.0.0.1:{only(FINAL, 'EXPOSE')}" in text
