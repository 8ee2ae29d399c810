"""The views of examples, as parts of videos: those that `classify` takes of the same clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from nonlocal_video.datasets.check import local_file
from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.fragment import split_part, with_part
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.models.card import InputSpec
from nonlocal_video.teaching.examples import Example
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.sampling import plan_views


@dataclass(frozen=True)
class ExampleViews:
    """The views of one example, each named `VIDEO#t=START,END`; or why it has none."""

    example: Example
    parts: tuple[str, ...] = ()
    problem: VideoError | None = None


def find_views(
    recognizer: Recognizer, examples: Sequence[Example], num_views: int, *, fast: bool = False
) -> Iterator[ExampleViews]:
    """Yield the views of each example: the middle one, or several from its beginning to its end.

    Args:
        recognizer: Gives the network's input, and readers of the files' headers.
        examples: Clips, and segments of videos.
        num_views: Views of an example, as CLIPS of `--views CLIPSx1`; a shorter example has one.
        fast: The model card's cheaper view.
    """
    spec = recognizer.card.view(fast=fast)
    with closing(recognizer.new_reader()) as reader:
        for example in examples:
            try:
                yield ExampleViews(example, tuple(_parts(reader, example.path, spec, num_views)))
            except VideoError as error:
                yield ExampleViews(example, problem=error)


def _parts(reader: VideoReader, name: str, spec: InputSpec, num_views: int) -> Iterator[str]:
    path, part = split_part(name)
    with local_file(path, reader) as local:
        info = reader.probe(local)
    start, end = (None, None) if part is None else part
    try:
        views = plan_views(
            info,
            num_frames=spec.num_frames,
            frames_per_second=spec.rate_in(info.fps),
            num_clips=1 if spec.whole_clip else num_views,
            start_seconds=start,
            end_seconds=end,
            clip_placement=spec.clip_placement,
            frame_placement=spec.frame_placement,
            short_clips=spec.short_clips,
            whole_clip=spec.whole_clip,
        )
    except UsageError as error:
        raise VideoError("not_found", f"{name}: it has no such part: {error}") from error
    for view in dict.fromkeys((view.start_seconds, view.end_seconds) for view in views):
        yield with_part(path, round(view[0], 6), min(round(view[1], 6), info.end_seconds))
