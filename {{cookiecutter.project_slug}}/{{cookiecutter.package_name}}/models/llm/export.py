"""Export to Hugging Face's `transformers`: `python export.py checkpoint=runs/<run> out=exported`."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ...config import recompose
from ...config.errors import UsageError, require
from ...data.tokens_text import END_OF_TEXT, Codec, Tokenizer, codec_of
from ..build import set_precision, trained_model
from .huggingface import MODELING, hf_config, hf_state
from .model import Llama
from .sample import OPTIONS as SAMPLING

OPTIONS = {"out": ("", "the folder to write; must be new or empty")}


def export(checkpoint: Path, config: Mapping[str, Any], out: str) -> None:
    """Writes config, weights and tokenizer, all or nothing, and prints the code that loads them.

    Raises:
        ValueError: the folder cannot be written or is not empty, or the norm cannot be exported.
    """
    folder = Path(out).absolute()
    require(bool(out), "out is not set: expected a folder, as in out=exported")
    require(not folder.exists() or folder.is_dir(), f"out={out}: expected a folder, this is a file")
    empty = not folder.exists() or not any(folder.iterdir())
    require(empty, f"out={out}: the folder is not empty; choose another")
    cfg = recompose(config, [], anew=(), free=())
    codec = codec_of(config["data"])
    model = cast(Llama, trained_model(cfg, checkpoint))
    set_precision(model, cfg.trainer.precision)
    hf = hf_config(config["model"], config["norm"], model.lm_head.weight.dtype)
    try:
        _write(folder, model, hf, codec)
    except OSError as error:
        raise UsageError(f"out={out}: the folder cannot be written ({error.strerror})") from error
    print(f"wrote {out}: {', '.join(sorted(file.name for file in folder.iterdir()))}\n")
    print("from transformers import AutoModelForCausalLM, AutoTokenizer\n")
    trust = ", trust_remote_code=True" if "auto_map" in hf else ""
    print(f"model = AutoModelForCausalLM.from_pretrained({out!r}{trust})")
    print(f"tokenizer = AutoTokenizer.from_pretrained({out!r}{trust})")


def _write(folder: Path, model: Llama, config: dict[str, Any], codec: Codec) -> None:
    """Writes into a folder beside `folder`, and renames it when it is complete."""
    from safetensors.torch import save_file

    new_parents = [parent for parent in folder.parents if not parent.exists()]
    draft = folder.with_name(f".{folder.name}-{os.getpid()}")
    tokenizer, end = tokenizer_json(codec)
    ends = {"bos_token_id": codec.eot, "eos_token_id": codec.eot}
    how = {key: SAMPLING[key][0] for key in ("temperature", "top_k", "top_p", "max_new_tokens")}
    try:
        draft.mkdir(parents=True)
        _dump(draft / "config.json", config | ends)
        _dump(draft / "generation_config.json", {**ends, "pad_token_id": codec.eot, "do_sample": True, **how})
        (draft / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        names = dict.fromkeys(("bos_token", "eos_token", "pad_token"), end)
        limits = {"model_max_length": model.context, "clean_up_tokenization_spaces": False}
        _dump(draft / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names, **limits})
        if "auto_map" in config:
            shutil.copyfile(MODELING, draft / MODELING.name)
        weights = draft / "model.safetensors"
        save_file(hf_state(model), weights, {"format": "pt"})
        shutil.copymode(draft / "config.json", weights)  # safetensors makes the file private
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(new_parents[-1] if new_parents else draft, ignore_errors=True)
        raise


def tokenizer_json(codec: Codec) -> tuple[str, str]:
    """Returns the content of tokenizer.json for a codec, and the text of its end-of-document token."""
    if isinstance(codec, Tokenizer):
        return codec.library.to_str(pretty=True), str(codec.library.id_to_token(codec.eot))
    pieces: dict[str, Any] = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    vocabulary = {character: byte for byte, character in enumerate(byte_characters())}
    special = {"id": codec.eot, "content": END_OF_TEXT, "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    settings = {
        "version": "1.0",
        "added_tokens": [special | flags],
        "pre_tokenizer": {"type": "ByteLevel", **pieces},
        "decoder": {"type": "ByteLevel", **pieces},
        "model": {"type": "BPE", "vocab": vocabulary | {END_OF_TEXT: codec.eot}, "merges": []},
    }
    return json.dumps(settings, indent=2, ensure_ascii=False), END_OF_TEXT


def byte_characters() -> list[str]:
    """Returns the characters that stand for the bytes in byte-level tokenizers (Radford et al. 2019).

    A printable byte stands for itself, others take the characters from 256 on, in order.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _dump(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
