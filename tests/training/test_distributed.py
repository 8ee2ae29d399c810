"""Messages between the processes of one run."""

from __future__ import annotations

import multiprocessing
import socket
from pathlib import Path

import pytest
import torch
from absent import needs
from torch import nn

from nonlocal_video.training.distributed import copy_buffers_from_first

pytestmark = pytest.mark.slow


def _process(rank: int, port: int, folder: str) -> None:
    import torch.distributed as dist

    def pickled(*_: object, **__: object) -> None:
        raise AssertionError("a buffer was pickled")

    dist.broadcast_object_list = pickled
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    norm = nn.BatchNorm3d(3)
    norm(torch.full((1, 3, 2, 4, 4), float(rank + 1)) + torch.rand(1, 3, 2, 4, 4))
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += rank
    copy_buffers_from_first(norm)
    torch.save(norm.state_dict(), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@needs(torch.distributed.is_available(), "PyTorch was built without torch.distributed")
def test_buffers_of_the_first_process_arrive_as_tensors(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_process, args=(rank, port, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert 1 < first["running_mean"].mean() * 10 < 2  # of the first one's clips, at momentum 0.1
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
