"""Where documents come from: files, Hugging Face datasets and TFDS, each cut into shards by its arguments alone."""

from aya_jax.data.sources.conversations import ConversationSource
from aya_jax.data.sources.files import FileSource
from aya_jax.data.sources.hubs import HuggingFaceSource, TfdsSource
from aya_jax.data.sources.record import BadRecord, Record, Source

__all__ = ["BadRecord", "ConversationSource", "FileSource", "HuggingFaceSource", "Record", "Source", "TfdsSource"]
