"""Views of a picture, from places that move smoothly and stay inside; bad files get rows."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_parts import every_view
from PIL import Image
from torch import Tensor
from training_clips import SPEC

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.training.augment import Augmentation, seeded
from nonlocal_video.training.images import (
    CameraMotion,
    ImageDataset,
    ImageRow,
    check_images,
    pan_and_zoom,
    read_image,
)
from nonlocal_video.training.objective import UNLABELLED
from nonlocal_video.video.limits import DecodeLimits
from nonlocal_video.video.transforms import normalise, resize

NO_MOTION = CameraMotion(zoom=(1, 1), pan=0, rotation_degrees=0)
NO_CHANGE = Augmentation(crop_area=(1, 1), crop_ratio=(1, 1), flip=0, brightness=0, contrast=0, saturation=0)
HEIGHT, WIDTH = 96, 128


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four different ones, of two formats and four shapes."""
    random = np.random.default_rng(0)
    for name, height, width in (
        ("a.png", 60, 80),
        ("b.jpg", 80, 60),
        ("deep/c.jpeg", 48, 48),
        ("deep/d.png", 200, 300),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        patches = random.integers(0, 256, (height // 4, width // 4, 3)).astype(np.uint8)
        Image.fromarray(np.kron(patches, np.ones((4, 4, 1), np.uint8))).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def stills(pictures: Path) -> ImageDataset:
    return ImageDataset(check_images([pictures]), SPEC, augmentation=Augmentation(), seed=3)


def compass() -> Tensor:
    """Red is the place from left to right, green from top to bottom."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    return torch.stack([x / WIDTH * 250, y / HEIGHT * 250, torch.zeros_like(x)], dim=2).round().to(torch.uint8)


def places(frames: Tensor) -> Tensor:
    """(T, H, W, 2) of the compass: where each pixel was taken from, in picture pixels."""
    return frames[..., :2].double() / 250 * torch.tensor([WIDTH, HEIGHT])


def test_without_motion_every_frame_is_the_picture(pictures: Path) -> None:
    picture = torch.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=torch.uint8)
    filmed = pan_and_zoom(picture, 5, (HEIGHT, WIDTH), NO_MOTION)
    assert torch.equal(filmed, picture.expand(5, -1, -1, -1))
    (row,) = check_images([pictures / "deep/c.jpeg"])
    clip, label = ImageDataset([row], SPEC, augmentation=NO_CHANGE, motion=NO_MOTION).view(0, 0)
    assert (clip.shape, clip.dtype, label) == ((3, 8, 40, 40), torch.float32, UNLABELLED)
    assert all(torch.equal(clip[:, 0], clip[:, frame]) for frame in range(8))
    still = normalise(resize(read_image(row.path)[None], (40, 40)), SPEC.mean, SPEC.std)
    assert torch.equal(clip[:, :1], still)


@pytest.mark.parametrize("seed", range(6))
def test_motion_is_smooth_and_stays_inside_and_has_its_bounds(seed: int) -> None:
    motion = CameraMotion(zoom=(1.2, 2.0), rotation_degrees=20)
    with seeded(seed):
        seen = places(pan_and_zoom(compass(), 64, (HEIGHT, WIDTH), motion))
    corners = seen[:, [0, 0, -1, -1], [0, -1, 0, -1]]  # (T, 4, 2)
    # A pixel beyond the edge would repeat the edge's colour: two neighbours would be alike.
    spread = (seen[:, :, -1] - seen[:, :, 0]).norm(dim=-1)
    assert (spread.amax(dim=1) - spread.amin(dim=1)).max() < 2.5
    assert corners.amin() > -1
    assert (corners <= torch.tensor([WIDTH, HEIGHT]) + 1).all()
    # Rotation and zoom, from the vector along the upper edge.
    edge = corners[:, 1] - corners[:, 0]
    angle = torch.rad2deg(torch.atan2(edge[:, 1], edge[:, 0]))
    zoom = (WIDTH - 1) / edge.norm(dim=1)
    largest_reach = math.cos(math.radians(20)) + WIDTH / HEIGHT * math.sin(math.radians(20))
    assert angle.abs().max() < 20.5
    assert zoom.min() > 1.15
    assert zoom.max() < 2.0 * largest_reach * 1.02
    # Nothing is stretched: the left edge stands upright on the upper one, in the picture's proportions.
    side = corners[:, 2] - corners[:, 0]
    assert ((edge * side).sum(dim=1) / (edge.norm(dim=1) * side.norm(dim=1))).abs().max() < 0.03
    assert (side.norm(dim=1) / edge.norm(dim=1) - (HEIGHT - 1) / (WIDTH - 1)).abs().max() < 0.03
    # No jerk: from frame to frame a corner moves a little, and its velocity changes less still.
    steps = corners.diff(dim=0).norm(dim=-1)
    turns = corners.diff(n=2, dim=0).norm(dim=-1)
    assert corners.flatten(1).std(dim=0).max() > 1  # it does move
    assert steps.max() < 0.08 * WIDTH
    assert turns.mean() < 2  # half a grey level of rounding is a quarter of a pixel, twice differenced


def test_strengths_and_paths_differ_from_clip_to_clip() -> None:
    ways = []
    for seed in range(12):
        with seeded(seed):
            seen = places(pan_and_zoom(compass(), 16, (HEIGHT, WIDTH), CameraMotion()))
        ways.append((seen[:, 40, 60] - seen[0, 40, 60]).norm(dim=1).max().item())
    assert min(ways) < 2  # hardly at all
    assert max(ways) > 10


def test_clips_depend_on_seed_epoch_and_place_and_not_on_workers(stills: ImageDataset) -> None:
    def loaded(workers: int, epoch: int) -> list[Tensor]:
        return [clip for clip, _ in every_view(stills, epoch, workers)]

    alone = loaded(0, 1)
    for clip, other in zip(loaded(2, 1), alone, strict=True):
        assert torch.equal(clip, other)
    assert torch.equal(stills.view(2, 1)[0], alone[2])
    assert not any(torch.equal(clip, other) for clip, other in zip(loaded(0, 0), alone, strict=True))
    seen = stills.statistics
    assert (seen.clips, seen.from_cache) == (13, 0)
    assert 0 < seen.decode_share < 1
    names = {stills.view_name(index, epoch) for index in range(4) for epoch in range(3)}
    assert len(names) == 12
    assert stills.view_name(0, 0) == ImageDataset(stills.rows, SPEC, augmentation=Augmentation(), seed=3).view_name(
        0, 0
    )
    for changes in ({"motion": NO_MOTION}, {"seed": 4}, {"augmentation": NO_CHANGE}):
        changed = ImageDataset(stills.rows, SPEC, **{"augmentation": Augmentation(), "seed": 3, **changes})
        assert changed.view_name(0, 0) not in names
    mixed = ImageDataset(stills.rows, SPEC, augmentation=Augmentation(mixup=0.2))
    with pytest.raises(UsageError, match="With mixup or cutmix, teacher outputs cannot be cached"):
        mixed.view_name(0, 0)


def test_files_that_are_no_pictures_get_rows_that_say_why(pictures: Path) -> None:
    (pictures / "text.png").write_text("no picture " * 50)
    (pictures / "half.png").write_bytes((pictures / "a.png").read_bytes()[:200])
    Image.new("L", (500, 10)).save(pictures / "long.png")
    Image.fromarray(np.zeros((50, 50), np.uint16)).save(pictures / "deep16.png")
    Image.new("RGB", (30, 30)).save(pictures / "other.gif")
    os.mkfifo(pictures / "pipe.png")
    (pictures / ".hidden").write_text("not looked at")
    rows = check_images([pictures, pictures / "gone.png"], limits=DecodeLimits(max_pixels=50_000, max_bytes=20_000))
    problems = {os.path.relpath(row.path, pictures): row.problem for row in rows}
    assert {name for name, problem in problems.items() if problem is None} == {"a.png", "b.jpg", "deep/c.jpeg"}
    for name, says in {
        "text.png": "unsupported_codec: text.png: it is neither a JPEG nor a PNG",
        "half.png": "corrupt: half.png: ",
        "long.png": "too_large: 500 x 10 is too elongated; crop it",
        "deep16.png": "unsupported_codec: deep16.png: it has 16 bits a channel",
        "other.gif": "neither a JPEG nor a PNG",
        "pipe.png": "not_found: pipe.png: there is no such file",
        "gone.png": "not_found: gone.png",
        "deep/d.png": "too_large: d.png: 300 x 200 has more than 50000 pixels",
    }.items():
        assert says in str(problems.pop(name)), name
    assert set(problems) == {"a.png", "b.jpg", "deep/c.jpeg"}


def test_pictures_are_upright_and_what_is_transparent_is_white(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 30), "red")
    picture.paste("blue", (0, 0, 20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter: its left side is shown at the top
    picture.save(tmp_path / "turned.png", exif=exif)
    turned = read_image(tmp_path / "turned.png")
    assert turned.shape == (40, 30, 3)
    assert turned[5, 5].tolist() == [0, 0, 255]
    assert turned[35, 25].tolist() == [255, 0, 0]
    glass = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    glass.putpixel((0, 0), (10, 20, 30, 255))
    glass.save(tmp_path / "glass.png")
    seen = read_image(tmp_path / "glass.png")
    assert (seen[0, 0].tolist(), seen[4, 4].tolist()) == ([10, 20, 30], [255, 255, 255])
    grey = tmp_path / "grey.jpg"
    Image.new("L", (8, 8), 90).save(grey)
    assert read_image(grey).shape == (8, 8, 3)


def test_what_cannot_be_is_refused(stills: ImageDataset) -> None:
    with pytest.raises(UsageError, match="rows is empty"):
        ImageDataset([], SPEC, augmentation=Augmentation())
    with pytest.raises(UsageError, match="cannot be used: corrupt: x"):
        ImageDataset([ImageRow("a", problem="corrupt: x")], SPEC, augmentation=Augmentation())
    with pytest.raises(UsageError, match=r"zoom = \(0.5, 1\) should be two numbers from 1 to 10"):
        CameraMotion(zoom=(0.5, 1))
    with pytest.raises(UsageError, match="pan = 2 should be"):
        CameraMotion(pan=2)
    with pytest.raises(UsageError, match="rotation_degrees = 90 should be"):
        CameraMotion(rotation_degrees=90)
    Image.new("RGB", (10, 10)).save(stills.rows[0].path)
    with pytest.raises(
        VideoError, match=r"a\.png: the image has changed since it was checked.* check the images again"
    ):
        stills.view(0, 0)
    Path(stills.rows[0].path).unlink()
    with pytest.raises(VideoError, match=r"there is no such file.* was readable when it was checked"):
        stills.view(0, 0)
