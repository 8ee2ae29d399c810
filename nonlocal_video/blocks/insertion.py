"""Insert non-local blocks after named modules of any network, and remove them again.

    blocks = insert_nonlocal(torchvision.models.video.r3d_18(), at=["layer3.1"])

The block becomes a submodule `nonlocal_block` of the module that it follows, so the network's own parameter names do
not change: its old state dicts still load (with `strict=False`), and its new ones load into any network with blocks
after the same modules. A plain `nn.Sequential` runs the block as its last child. Any other module runs it in a forward
hook, which is a function of this module so that copies and pickles keep it.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nonlocal_video.blocks.config import NonLocalConfig
from nonlocal_video.blocks.nonlocal_block import NonLocalBlock
from nonlocal_video.blocks.video import VideoNonLocalBlock
from nonlocal_video.errors import UsageError

CHILD = "nonlocal_block"
"""The name of an inserted block within the module that it follows."""
_GUESSED_SIZE = {nn.Conv1d: (64,), nn.Conv2d: (224, 224), nn.Conv3d: (16, 224, 224)}


def insert_nonlocal(
    network: nn.Module,
    at: Sequence[str] | Mapping[str, NonLocalBlock],
    *,
    config: NonLocalConfig | None = None,
    example_input: Any = None,
) -> dict[str, NonLocalBlock]:
    """Insert a non-local block after each of some modules of a network, in place.

    A new block is the identity, so the network's output stays the same until the block is trained. The block has as
    many channels C as its module's output: (B, C, H, W) gets a `NonLocalBlock`, (B, C, T, H, W) a
    `VideoNonLocalBlock`. To find C the network runs once, on `example_input` or else on an input guessed from its
    first convolution, without memory or arithmetic (the meta device). If neither works, pass the blocks in `at`.

    Args:
        network: Any network. It is left unchanged if an error is raised.
        at: Dotted module names, as in `network.named_modules()`; or a mapping from names to blocks, for settings that
            differ between blocks, for other dimensions and for the variants.
        config: Settings of the blocks; `mode` and `temporal_groups` act on video only.
        example_input: The network's input: a tensor, or a tuple of arguments.

    Returns:
        The blocks by the name of the module that each follows, with that module's device, dtype and training mode.

    Raises:
        UsageError: If a name is unknown, already has a block or does not run exactly once; if its output is not a
            feature map; or if the network could not be run to find the shapes.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())
        >>> insert_nonlocal(network, at=["0"])["0"].in_channels
        16
        >>> list(remove_nonlocal(network))
        ['0']
    """
    if isinstance(at, str):
        raise UsageError(f"at = {at!r} should be a list of names: at=[{at!r}].")
    modules = {name: _find(network, name) for name in at}
    shared = [name for name, module in modules.items() if list(modules.values()).count(module) > 1]
    if shared or len(modules) < len(at):
        raise UsageError(f"at = {list(at)} names a module more than once; a module takes one block.")
    if isinstance(at, Mapping):
        blocks = dict(at)
    else:
        shapes = _output_shapes(network, modules, example_input)
        blocks = {name: _new_block(name, shape, config or NonLocalConfig()) for name, shape in shapes.items()}
    for name, module in modules.items():
        like = next((p for p in [*module.parameters(), *network.parameters()] if p.is_floating_point()), None)
        if like is not None:
            blocks[name].to(like.device, like.dtype)
        module.add_module(CHILD, blocks[name].train(module.training))
        if not _runs_children(module):
            module.register_forward_hook(_run_block)
    return blocks


def remove_nonlocal(network: nn.Module) -> dict[str, nn.Module]:
    """Remove every block that `insert_nonlocal` inserted, in place. The network is then bit for bit as before.

    Blocks that the network was built with stay.

    Returns:
        The removed blocks by the name of the module that each followed.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())
        >>> blocks = insert_nonlocal(network, at=["0", "1"])
        >>> list(remove_nonlocal(network)), list(remove_nonlocal(network))
        (['0', '1'], [])
    """
    removed = {}
    for name, module in list(network.named_modules()):
        if CHILD in module._modules:
            removed[name] = module.get_submodule(CHILD)
            delattr(module, CHILD)
            for key in [key for key, hook in module._forward_hooks.items() if hook is _run_block]:
                del module._forward_hooks[key]
    return removed


def _run_block(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
    return module.get_submodule(CHILD)(output)


def _runs_children(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward


def _find(network: nn.Module, name: str) -> nn.Module:
    named = dict(network.named_modules(remove_duplicate=False))
    if not name or name not in named:
        near = difflib.get_close_matches(name, [known for known in named if known], n=5, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "network.named_modules() lists its names."
        raise UsageError(f"{type(network).__name__} has no module {name!r}; {hint}")
    if CHILD in named[name]._modules:
        raise UsageError(f"{name!r} already has a non-local block; remove_nonlocal(network) removes all of them.")
    return named[name]


def _new_block(name: str, shape: tuple[int, ...] | None, config: NonLocalConfig) -> NonLocalBlock:
    if shape is None or len(shape) not in (4, 5):
        given = "is not a tensor" if shape is None else f"has the shape {shape}"
        raise UsageError(
            f"The output of {name!r} {given}; a block takes feature maps (B, C, H, W) or (B, C, T, H, W). Name another "
            "module, or give the block itself: at={name: block}."
        )
    if len(shape) == 5:
        return VideoNonLocalBlock.from_config(shape[1], config)
    return NonLocalBlock(
        shape[1],
        config.inter_channels,
        2,
        config.sub_sample,
        config.bn_layer,
        config.nonlocal_type,
        scale=config.scale,
        pool_order=config.pool_order,
        embed_bias=config.embed_bias,
        out_bias=config.out_bias,
    )


def _output_shapes(
    network: nn.Module, modules: dict[str, nn.Module], example_input: Any
) -> dict[str, tuple[int, ...] | None]:
    """Return the shape of each module's output (None if it isn't a tensor), from one run of the network."""
    shapes: dict[str, tuple[int, ...] | None] = {}
    runs: Counter[str] = Counter()
    handles = []
    for name, module in modules.items():

        def note(module: nn.Module, arguments: Any, output: Any, name: str = name) -> None:
            shapes[name] = tuple(output.shape) if isinstance(output, Tensor) else None
            runs[name] += 1

        handles.append(module.register_forward_hook(note))
    failure: Exception | None = None
    try:
        with _evaluating(network), torch.no_grad():
            if example_input is None:
                _run_on_meta(network)
            else:
                network(*(example_input if isinstance(example_input, tuple) else (example_input,)))
    except Exception as error:  # a network may raise anything; the shapes recorded before it may be enough
        failure = error
    finally:
        for handle in handles:
            handle.remove()
    for name in modules:
        if not runs[name] and failure is not None:
            raise UsageError(
                f"The run to find the output shape of {name!r} failed with {type(failure).__name__}: {failure}. Pass "
                f"example_input=..., or the block itself: at={{{name!r}: NonLocalBlock(channels)}}."
            ) from failure
        if runs[name] != 1:
            raise UsageError(
                f"{name!r} ran {runs[name]} times in one run of the network; a block can follow a module that runs "
                "exactly once."
            )
    return {name: shapes[name] for name in modules}


def _run_on_meta(network: nn.Module) -> None:
    """Run a network on an input guessed from its first convolution, with all tensors on the meta device."""
    first = next((module for module in network.modules() if isinstance(module, _ConvNd)), None)
    sizes = [size for kind, size in _GUESSED_SIZE.items() if isinstance(first, kind)]
    if first is None or not sizes:
        raise UsageError("the network has no convolution to guess an input from")
    state = {name: tensor.to("meta") for name, tensor in [*network.named_parameters(), *network.named_buffers()]}
    example = torch.empty(2, first.in_channels, *sizes[0], device="meta", dtype=first.weight.dtype)
    torch.func.functional_call(network, state, (example,))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network into eval mode, and restore the mode of every module afterwards."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
