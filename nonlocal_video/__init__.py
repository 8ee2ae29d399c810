"""Recognise actions in video with 3D networks and spacetime non-local blocks, and see where the answer comes from.

The public names load on first use, so that importing the package (and `nonlocal-video --help`) loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nonlocal_video.analysis.tutorial import NonLocalAnalyzer as NonLocalAnalyzer
    from nonlocal_video.analysis.tutorial import NonLocalOptimizer as NonLocalOptimizer
    from nonlocal_video.annotations.formats import read_annotations as read_annotations
    from nonlocal_video.annotations.formats import write_annotations as write_annotations
    from nonlocal_video.annotations.segment import AnnotatedSegment as AnnotatedSegment
    from nonlocal_video.annotations.segment import Annotations as Annotations
    from nonlocal_video.attention.maps import AttentionMaps as AttentionMaps
    from nonlocal_video.attention.maps import QueryPoint as QueryPoint
    from nonlocal_video.blocks.config import NonLocalConfig as NonLocalConfig
    from nonlocal_video.blocks.insertion import insert_nonlocal as insert_nonlocal
    from nonlocal_video.blocks.insertion import remove_nonlocal as remove_nonlocal
    from nonlocal_video.blocks.nonlocal_block import NonLocalBlock as NonLocalBlock
    from nonlocal_video.blocks.variants import factorized_attention as factorized_attention
    from nonlocal_video.blocks.variants import memory_efficient as memory_efficient
    from nonlocal_video.blocks.variants import sparse_attention as sparse_attention
    from nonlocal_video.blocks.video import VideoNonLocalBlock as VideoNonLocalBlock
    from nonlocal_video.errors import ModelError as ModelError
    from nonlocal_video.errors import NonlocalVideoError as NonlocalVideoError
    from nonlocal_video.errors import UsageError as UsageError
    from nonlocal_video.errors import VideoError as VideoError
    from nonlocal_video.evaluation.api import EvaluationCallback as EvaluationCallback
    from nonlocal_video.evaluation.api import evaluate as evaluate
    from nonlocal_video.evaluation.report import Evaluation as Evaluation
    from nonlocal_video.features.extract import extract_features as extract_features
    from nonlocal_video.features.folder import extract_arrays as extract_arrays
    from nonlocal_video.features.table import FeatureTable as FeatureTable
    from nonlocal_video.features.table import read_features as read_features
    from nonlocal_video.inference.batch_run import FolderResult as FolderResult
    from nonlocal_video.inference.explanation import Explanation as Explanation
    from nonlocal_video.inference.load import load as load
    from nonlocal_video.inference.prediction import Failure as Failure
    from nonlocal_video.inference.prediction import Prediction as Prediction
    from nonlocal_video.inference.recognizer import Recognizer as Recognizer
    from nonlocal_video.inference.timeline import Timeline as Timeline
    from nonlocal_video.inference.window_features import WindowFeatures as WindowFeatures
    from nonlocal_video.models.card import InputSpec as InputSpec
    from nonlocal_video.models.card import ModelCard as ModelCard
    from nonlocal_video.models.inception3d import InceptionI3D as InceptionI3D
    from nonlocal_video.models.resnet2d import BasicBlock as BasicBlock
    from nonlocal_video.models.resnet2d import NonLocalNet as NonLocalNet
    from nonlocal_video.models.resnet3d import Basic3DBlock as Basic3DBlock
    from nonlocal_video.models.resnet3d import Video3DResNet as Video3DResNet
    from nonlocal_video.retrieval.api import search as search
    from nonlocal_video.retrieval.example import SearchExample as SearchExample
    from nonlocal_video.retrieval.hit import Hit as Hit
    from nonlocal_video.retrieval.result import SearchResult as SearchResult
    from nonlocal_video.teaching.api import TaughtRun as TaughtRun
    from nonlocal_video.teaching.api import teach as teach
    from nonlocal_video.teaching.lessons import TeachCallback as TeachCallback
    from nonlocal_video.teaching.report import TeachReport as TeachReport
    from nonlocal_video.training.api import TrainCallback as TrainCallback
    from nonlocal_video.training.api import TrainedRun as TrainedRun
    from nonlocal_video.training.api import train as train
    from nonlocal_video.video.decode import VideoReader as VideoReader
    from nonlocal_video.video.limits import DecodeLimits as DecodeLimits
    from nonlocal_video.zoo.catalogue import build as build
    from nonlocal_video.zoo.models import list_models as list_models
    from nonlocal_video.zoo.models import pull as pull

_MODULE_OF_NAME = {
    "AnnotatedSegment": "annotations.segment",
    "Annotations": "annotations.segment",
    "AttentionMaps": "attention.maps",
    "Basic3DBlock": "models.resnet3d",
    "BasicBlock": "models.resnet2d",
    "DecodeLimits": "video.limits",
    "Evaluation": "evaluation.report",
    "EvaluationCallback": "evaluation.api",
    "Explanation": "inference.explanation",
    "Failure": "inference.prediction",
    "FeatureTable": "features.table",
    "FolderResult": "inference.batch_run",
    "InceptionI3D": "models.inception3d",
    "InputSpec": "models.card",
    "Hit": "retrieval.hit",
    "ModelCard": "models.card",
    "ModelError": "errors",
    "NonLocalAnalyzer": "analysis.tutorial",
    "NonLocalBlock": "blocks.nonlocal_block",
    "NonLocalConfig": "blocks.config",
    "NonLocalNet": "models.resnet2d",
    "NonLocalOptimizer": "analysis.tutorial",
    "NonlocalVideoError": "errors",
    "Prediction": "inference.prediction",
    "QueryPoint": "attention.maps",
    "Recognizer": "inference.recognizer",
    "SearchExample": "retrieval.example",
    "SearchResult": "retrieval.result",
    "TaughtRun": "teaching.api",
    "TeachCallback": "teaching.lessons",
    "TeachReport": "teaching.report",
    "Timeline": "inference.timeline",
    "UsageError": "errors",
    "Video3DResNet": "models.resnet3d",
    "TrainCallback": "training.api",
    "TrainedRun": "training.api",
    "VideoError": "errors",
    "VideoNonLocalBlock": "blocks.video",
    "VideoReader": "video.decode",
    "WindowFeatures": "inference.window_features",
    "build": "zoo.catalogue",
    "evaluate": "evaluation.api",
    "extract_arrays": "features.folder",
    "extract_features": "features.extract",
    "factorized_attention": "blocks.variants",
    "insert_nonlocal": "blocks.insertion",
    "list_models": "zoo.models",
    "load": "inference.load",
    "memory_efficient": "blocks.variants",
    "pull": "zoo.models",
    "read_annotations": "annotations.formats",
    "read_features": "features.table",
    "remove_nonlocal": "blocks.insertion",
    "search": "retrieval.api",
    "sparse_attention": "blocks.variants",
    "teach": "teaching.api",
    "train": "training.api",
    "write_annotations": "annotations.formats",
}

__all__ = sorted([*_MODULE_OF_NAME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF_NAME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
