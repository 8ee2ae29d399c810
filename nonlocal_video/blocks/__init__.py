"""The non-local operation and the blocks made of it."""

from nonlocal_video.blocks.config import NonLocalConfig, NonLocalMode, NonLocalType, PoolOrder, Scale
from nonlocal_video.blocks.insertion import insert_nonlocal, remove_nonlocal
from nonlocal_video.blocks.nonlocal_block import NonLocalBlock
from nonlocal_video.blocks.variants import factorized_attention, memory_efficient, sparse_attention
from nonlocal_video.blocks.video import VideoNonLocalBlock

__all__ = [
    "NonLocalBlock",
    "NonLocalConfig",
    "NonLocalMode",
    "NonLocalType",
    "PoolOrder",
    "Scale",
    "VideoNonLocalBlock",
    "factorized_attention",
    "insert_nonlocal",
    "memory_efficient",
    "remove_nonlocal",
    "sparse_attention",
]
