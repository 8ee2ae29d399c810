"""Networks of users, named as `package.module:function`: the function returns a network and its card."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nonlocal_video.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    from nonlocal_video.models.card import ModelCard

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_function(name: str | Path) -> bool:
    """Return whether a model's name is `package.module:function`; a file or folder of that name comes first."""
    return _NAME.fullmatch(str(name)) is not None and not Path(name).exists()


def digest_of_state(network: nn.Module) -> str:
    """Return the SHA-256 of a network's parameters and buffers: their names, shapes, types and values."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def call_function(name: str) -> tuple[nn.Module, ModelCard]:
    """Import the module of `package.module:function`, call the function, and return its network and card.

    The module is looked for where Python looks, and then in the working directory.

    Raises:
        ModelError: There is no such module or function, it is not callable, it fails, or it returns something else.
    """
    from torch import nn

    from nonlocal_video.models.card import ModelCard

    module_name, _, path = name.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # the console script's own folder is there instead; never before installed packages
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:
        why = f"importing {module_name} failed: {type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            why = f"there is no module {error.name!r} where Python looks (PYTHONPATH), nor in {here}."
        raise ModelError(f"Model {name!r}: {why}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ModelError(f"Model {name!r}: {module_name} has no {path!r}; give the name of a function in it.")
        found = getattr(found, part)
    if not callable(found):
        raise ModelError(f"Model {name!r}: it is a {type(found).__name__}, and should be a function without arguments.")
    try:
        made = found()
    except Exception as error:
        raise ModelError(f"Model {name!r}: the function failed: {type(error).__name__}: {error}") from error
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module) and isinstance(made[1], ModelCard):
        return made[0].eval(), made[1]
    kinds = f"({', '.join(type(part).__name__ for part in made)})" if isinstance(made, tuple) else type(made).__name__
    raise ModelError(f"Model {name!r}: the function returned {kinds}, and should return (nn.Module, nlv.ModelCard).")
