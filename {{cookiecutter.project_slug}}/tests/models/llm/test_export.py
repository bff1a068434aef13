"""Exported folders, as `transformers` loads them: plain LLaMAs, those with a modelling file, and tokenizers."""

import json
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

import export
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.data.tokens_text import Codec, codec_of
from {{cookiecutter.package_name}}.models.llm import huggingface
from {{cookiecutter.package_name}}.models.llm.generate import generate
from {{cookiecutter.package_name}}.models.llm.huggingface import MODELING, load_pretrained
from {{cookiecutter.package_name}}.models.llm.model import Llama
from {{cookiecutter.package_name}}.norms import PointwiseNorm

from ...data.test_tokens_text import save_tokenizer
from .models import save_checkpoint
from .tiny import TINY

SIZES = [*TINY.argv, "model.num_kv_heads=1"]
EXTRAS = ["model.embed_scale=true", "model.qk_norm=same"]


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the folder to which `transformers` copies the modelling file; by default it is in the user's home."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])


def exported(folder: Path, *argv: str) -> tuple[Llama, Path]:
    task = save_checkpoint(folder / "last.ckpt", [*SIZES, "model.embed_scale=false", *argv])
    export.main([f"checkpoint={folder / 'last.ckpt'}", f"out={folder / 'out'}"])
    return cast(Llama, task.eval_model).eval(), folder / "out"


def loaded(folder: Path, **options: Any) -> Any:
    """Returns the model; every weight is found and none is left over."""
    found: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(found[1].values())
    return found[0]


@torch.no_grad()
def assert_same(ours: Llama, other: Any) -> None:
    tokens = torch.randint(257, (2, 16), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(tokens), other(tokens).logits, rtol=1e-5, atol=1e-5)
    prompt = tokens[:, :5]
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with_cache, without = (other.generate(prompt, use_cache=use, **options)[:, 5:] for use in (True, False))
    assert torch.equal(with_cache, without)
    assert torch.equal(torch.stack(list(generate(ours, prompt, 8, temperature=0.0)), dim=1), with_cache)


@pytest.mark.parametrize("norm", [*huggingface.MODELING_NORMS, "plain"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_same_model_there_and_back(tmp_path: Path, norm: str, tied: bool) -> None:
    """With RMSNorm and no extras it is transformers' own LLaMA; with others the modelling file comes with it."""
    plain = norm == "plain"
    options = ["norm=rmsnorm", "norm.eps=1e-3"] if plain else [f"norm={norm}", *EXTRAS[: 2 if tied else 1]]
    ours, folder = exported(tmp_path, *options, f"model.tied={str(tied).lower()}")
    other = loaded(folder, trust_remote_code=not plain)
    assert type(other).__name__ == ("LlamaForCausalLM" if plain else "NormLlamaForCausalLM")
    assert (folder / MODELING.name).exists() != plain
    assert_same(ours, other)
    assert_same(load_pretrained(str(folder), {}).eval(), other)


@pytest.mark.parametrize("alpha_per", ["channel", "none"])
def test_every_kind_of_alpha(tmp_path: Path, alpha_per: str) -> None:
    ours, folder = exported(tmp_path, "norm=derf", f"norm.alpha_per={alpha_per}", "model.qk_norm=same")
    for _, norm in ours.named_modules():
        if (alpha := getattr(norm, "alpha", None)) is not None:
            torch.nn.init.uniform_(alpha, 0.5, 2.0)
    other = loaded(folder, trust_remote_code=True)
    state = huggingface.hf_state(ours)
    assert other.load_state_dict(state)
    assert_same(ours, other)
    assert load_pretrained(str(folder), {}).state_dict().keys() == ours.state_dict().keys()


@pytest.mark.parametrize("alpha_per", ["layer", "none"])
def test_a_running_scale_is_folded_into_alpha(tmp_path: Path, alpha_per: str) -> None:
    ours, folder = exported(tmp_path, "norm=derf", f"norm.alpha_per={alpha_per}", "norm.running_scale=true")
    assert all(norm.running_square.item() > 0 for norm in ours.modules() if isinstance(norm, PointwiseNorm))
    assert_same(ours, loaded(folder, trust_remote_code=True))


@pytest.mark.parametrize(
    "options",
    [
        ["norm=scalenorm"],
        ["norm.scale=one_plus_weight"],
        ["model.qk_norm=dyt"],
        ["model.residual=skipinit"],
        ["model.norm_placement=peri"],
    ],
    ids=str,
)
def test_a_model_that_the_modelling_file_lacks_is_refused(tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(ValueError, match=r"modeling_norm_llama\.py"):
        exported(tmp_path, "norm=rmsnorm", *options)
    assert not (tmp_path / "out").exists()


def test_the_modelling_file_stands_alone(tmp_path: Path) -> None:
    _, folder = exported(tmp_path, "norm=dyt")
    text = (folder / MODELING.name).read_text()
    imports = [line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import", "from"))]
    assert set(imports) == {"collections", "torch", "transformers", "typing"}
    other = loaded(folder, trust_remote_code=True, dtype=torch.bfloat16)
    kept = {parameter.dtype for name, parameter in other.named_parameters() if name.endswith("alpha")}
    assert kept == {torch.float32}, "alpha is not rounded"
    assert other(torch.tensor([[1, 2, 3]])).logits.dtype == torch.bfloat16
    other.save_pretrained(tmp_path / "again")
    again = loaded(tmp_path / "again", trust_remote_code=True)
    torch.testing.assert_close(again(torch.tensor([[1, 2]])).logits, other(torch.tensor([[1, 2]])).logits)


def test_the_average_is_what_is_exported(tmp_path: Path) -> None:
    ours, folder = exported(tmp_path, "norm=rmsnorm", "ema.decay=0.9")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    changed = {name: one + 1 if name.startswith("model.") else one for name, one in saved["state_dict"].items()}
    torch.save({**saved, "state_dict": changed}, tmp_path / "last.ckpt")
    export.main([f"checkpoint={tmp_path / 'last.ckpt'}", f"out={tmp_path / 'second'}"])
    for one in (folder, tmp_path / "second"):
        assert_same(ours, loaded(one))


TEXTS = ["def f(x):\n\treturn x  # naïve\r\n", "", "  two  spaces ", "日本 🙂", "\x00\x7f\x85\u2028", "<s>"]


def test_bytes_as_a_tokenizer(tmp_path: Path) -> None:
    _, folder = exported(tmp_path, "norm=rmsnorm")
    tokenizer, codec = AutoTokenizer.from_pretrained(folder), Codec()
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == list(text.encode()) == codec.encode(text)
        assert tokenizer.decode(codec.encode(text)) == text
        assert tokenizer.decode([*codec.encode(text), 256], skip_special_tokens=True) == text
    assert sorted(tokenizer.get_vocab().values()) == list(range(257))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (256, 256, 256)
    assert tokenizer(["ab", "c"], padding=True)["input_ids"] in ([[97, 98], [99, 256]], [[97, 98], [256, 99]])
    assert len(tokenizer) == 257


@pytest.mark.parametrize("template", ["$A", "</s> $A", "$A </s>"])
def test_the_tokenizer_of_prepared_data(tmp_path: Path, template: str) -> None:
    """Training adds no tokens to a text, and so the exported one does not, whatever its file would have it add."""
    text = "the cat sat on the mat, the café\n" * 9
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    prepare = pytest.importorskip("prepare")  # of the tools
    given = Tokenizer.from_file(str(save_tokenizer(tmp_path / "tokenizer.json", "</s>")))
    end = given.token_to_id("</s>")
    given.post_processor = TemplateProcessing(single=template, special_tokens=[("</s>", end)])
    given.save(str(tmp_path / "tokenizer.json"))
    made = [f"source={tmp_path / 'text.txt'}", f"out={tmp_path / 'data'}", f"tokenizer={tmp_path / 'tokenizer.json'}"]
    prepare.main([*made, "workers=1", "val_fraction=0.0", "test_fraction=0.0"])
    tiny = [one for one in SIZES if not one.startswith("data.")]
    data = ["data=tokens", f"data.root={tmp_path / 'data'}", "data.context=16", "data.vocab_size=280"]
    save_checkpoint(tmp_path / "last.ckpt", [*tiny, "norm=rmsnorm", "model.embed_scale=false", *data])
    export.main([f"checkpoint={tmp_path / 'last.ckpt'}", f"out={tmp_path / 'out'}"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    codec = codec_of({"name": "tokens", "root": str(tmp_path / "data")})
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == codec.encode(text)
        assert tokenizer.decode(codec.encode(text)) == text
    assert tokenizer.eos_token_id == codec.eot
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["eos_token_id"], config["vocab_size"]) == (codec.eot, 280)


def test_a_folder_with_contents_is_left_alone(tmp_path: Path) -> None:
    _, folder = exported(tmp_path, "norm=rmsnorm")
    before = (folder / "config.json").stat().st_mtime_ns
    for out in (folder, folder / "config.json", ""):
        with pytest.raises(UsageError, match="out="):
            export.main([f"checkpoint={tmp_path / 'last.ckpt'}", f"out={out}"])
    assert (folder / "config.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("norm", ["dyt", "rmsnorm"])
def test_the_printed_lines_load_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, norm: str
) -> None:
    monkeypatch.setattr("builtins.input", None)  # nobody is asked whether to trust the code
    exported(tmp_path, f"norm={norm}")
    first, *code = capsys.readouterr().out.splitlines()
    assert first.startswith(f"wrote {tmp_path / 'out'}: config.json, ")
    names: dict[str, Any] = {}
    exec("\n".join(code), names)
    text = names["tokenizer"]("def f", return_tensors="pt")
    assert names["model"](**text).logits.shape == (1, 5, 257)
