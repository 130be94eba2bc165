"""Words <-> ids. PAD, START, END and UNK come first; stored as JSON, never as pickle."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.errors import ArtifactError
from models.files import write_text_atomic
from models.tokens import tokenize

PAD, START, END, UNK = range(4)
SPECIAL_WORDS = ("<pad>", "<start>", "<end>", "<unk>")


@dataclass(frozen=True)
class Vocabulary:
    """`words[id]` is the word of an id; the first four are SPECIAL_WORDS."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what can't be a vocabulary. Raises ArtifactError."""
        if self.words[:4] != SPECIAL_WORDS or len(set(self.words)) != len(self.words):
            raise ArtifactError(
                f"a vocabulary starts with {SPECIAL_WORDS} and repeats no word; received {self.words[:6]}..."
            )
        object.__setattr__(self, "_ids", {word: index for index, word in enumerate(self.words)})

    @classmethod
    def build(cls, sentences: Iterable[str], *, minimum_count: int) -> Self:
        """Words seen at least `minimum_count` times, the most frequent first, ties by spelling."""
        counts = Counter(word for sentence in sentences for word in tokenize(sentence))
        kept = sorted((w for w, n in counts.items() if n >= minimum_count), key=lambda w: (-counts[w], w))
        return cls((*SPECIAL_WORDS, *kept))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, sentence: str) -> list[int]:
        """Ids of a sentence, markers included: START, words (UNK where unknown), END."""
        ids: dict[str, int] = self._ids  # type: ignore[attr-defined]
        return [START, *(ids.get(word, UNK) for word in tokenize(sentence)), END]

    def decode(self, ids: Sequence[int]) -> str:
        """The sentence of `ids`, up to END and without markers."""
        words = []
        for index in ids:
            if index == END:
                break
            if index > END:
                words.append(self.words[index])
        return " ".join(words)

    def save(self, path: Path) -> None:
        """Write the words as a JSON list."""
        write_text_atomic(path, json.dumps(self.words, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises ArtifactError when it is missing or malformed."""
        try:
            words = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"can't read the vocabulary {path}: {error}. Build it again.") from error
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ArtifactError(f"{path} is not a JSON list of words. Build it again.")
        return cls(tuple(words))


def pad_captions(captions: Sequence[Sequence[int]], length: int) -> NDArray[np.int32]:
    """Post-padded int32 (n, length). Post-padding needs no mask inside a causal decoder."""
    padded = np.full((len(captions), length), PAD, np.int32)
    for row, ids in zip(padded, captions, strict=True):
        row[: min(len(ids), length)] = ids[:length]
    return padded
