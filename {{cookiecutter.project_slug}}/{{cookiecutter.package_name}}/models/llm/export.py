"""Export to Hugging Face's `transformers`: `python export.py checkpoint=runs/<run> out=exported`."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ...config import recompose
from ...config.errors import require
from ...data.tokens_text import codec_of
from ..trained import set_precision, trained_model
from .huggingface import MODELING, hf_config, hf_state
from .model import Llama, build
from .sample import OPTIONS as SAMPLING

OPTIONS = {"out": ("", "the folder to write; must be new or empty")}


def export(checkpoint: Path, config: Mapping[str, Any], out: str) -> None:
    """Writes config, weights and tokenizer, and prints the code that loads them.

    Raises:
        OSError: the folder cannot be written.
        ValueError: it is not empty, or the norm cannot be exported.
    """
    from safetensors.torch import save_file

    folder = Path(out)
    free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    require(bool(out) and free, f"out={out}: expected a folder that is new or empty")
    cfg = recompose(config, [], anew=(), free=())
    codec = codec_of(config["data"])
    model = cast(Llama, trained_model(build, cfg, checkpoint))
    set_precision(model, cfg.trainer.precision)
    hf = hf_config(config["model"], config["norm"], model.lm_head.weight.dtype)
    ends = {"bos_token_id": codec.eot, "eos_token_id": codec.eot}
    sampling = {key: SAMPLING[key][0] for key in ("temperature", "top_k", "top_p", "max_new_tokens")}
    settings = {
        "config": hf | ends,
        "generation_config": {**ends, "pad_token_id": codec.eot, "do_sample": True, **sampling},
        "tokenizer_config": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **dict.fromkeys(("bos_token", "eos_token", "pad_token"), codec.tokenizer.id_to_token(codec.eot)),
            "model_max_length": model.context,
            "clean_up_tokenization_spaces": False,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in settings.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    codec.tokenizer.save(str(folder / "tokenizer.json"))
    if "auto_map" in hf:
        shutil.copyfile(MODELING, folder / MODELING.name)
    save_file(hf_state(model), folder / "model.safetensors", {"format": "pt"})
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # safetensors makes the file private
    print(f"wrote {out}: {', '.join(sorted(file.name for file in folder.iterdir()))}\n")
    print("from transformers import AutoModelForCausalLM, AutoTokenizer\n")
    trust = ", trust_remote_code=True" if "auto_map" in hf else ""
    print(f"model = AutoModelForCausalLM.from_pretrained({out!r}{trust})")
    print(f"tokenizer = AutoTokenizer.from_pretrained({out!r}{trust})")
