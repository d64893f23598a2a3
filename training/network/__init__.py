"""The network of the paper, one file a module."""

from training.network.adapter import Adapter
from training.network.config import NetworkConfig
from training.network.deper import Deper, DeperOutput
from training.network.image_encoder import ImageEncoder
from training.network.persona_encoder import Context, PersonaEncoder, PersonaEncoding
from training.network.subject_extractor import SubjectExtractor, SubjectHead
from training.network.text_table import TextTable
from training.network.trajectory_decoder import DecodedTrajectories, TrajectoryDecoder

__all__ = [
    "Adapter",
    "Context",
    "DecodedTrajectories",
    "Deper",
    "DeperOutput",
    "ImageEncoder",
    "NetworkConfig",
    "PersonaEncoder",
    "PersonaEncoding",
    "SubjectExtractor",
    "SubjectHead",
    "TextTable",
    "TrajectoryDecoder",
]
