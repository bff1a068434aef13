"""The pictures that training shows of what the model draws."""

from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import sample
from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.data.images import pixels
from {{cookiecutter.package_name}}.models.dit.module import DiTModule
from {{cookiecutter.package_name}}.models.dit.samples import Samples
from {{cookiecutter.package_name}}.train import build_data, build_module

from .tiny import TINY

TILE = 64 + 4  # an image of 8 x 8, and the gap


def train(folder: Path, *argv: str, n: int = 12, steps: int = 3, **options) -> tuple[DiTModule, L.Trainer]:
    cfg = compose([*TINY.argv, "ema.decay=0.5", "monitor.every_n_steps=0", *argv])
    data, module = build_data(cfg), build_module(cfg)
    assert isinstance(module, DiTModule)
    module.callbacks = [Samples(pixels(plain(cfg.data)), n, steps)]
    trainer = L.Trainer(
        **{"accelerator": "cpu", "max_steps": 8, "limit_train_batches": 4, "limit_val_batches": 1, **options},
        default_root_dir=folder,
        logger=TensorBoardLogger(folder, name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)
    (folder / "checkpoints").mkdir()
    saved = {"config": plain(cfg), "global_step": 8, "state_dict": module.state_dict()}
    torch.save(saved, folder / "checkpoints" / "last.ckpt")
    return module, trainer


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened).astype(int)


def image_steps(folder: Path) -> dict[str, list[int]]:
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}


def test_pictures_are_what_sample_draws_without_guidance(tmp_path: Path) -> None:
    train(tmp_path)
    sample.main([f"checkpoint={tmp_path}", "n=12", "steps=3"])
    ours, theirs = picture(tmp_path / "samples.png"), picture(tmp_path / "samples-1.png")
    assert np.abs(ours - theirs).max() <= 1
    assert ours.shape == (2 * TILE + 4, 10 * TILE + 4, 3), "a column for each class"
    assert image_steps(tmp_path) == {"samples": [4, 8], "trajectory": [4, 8]}, "not twice at the end"
    paths = picture(tmp_path / "trajectory.png")
    assert paths.shape == (5 * TILE + 4, 4 * TILE + 4, 3), "noise and three steps of five samples"
    assert (paths[4:68, -68:-4] == ours[4:68, 4:68]).all()
    assert paths[4:68, 4:68].std() > 60, "noise"


def test_pictures_do_not_change_the_training(tmp_path: Path) -> None:
    argv = ["norm=bn", "ema.decay=0"]
    (one, _), (other, trainer) = train(tmp_path / "on", *argv), train(tmp_path / "off", *argv, n=0)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert not (tmp_path / "off" / "samples.png").exists()
    other.model.get_submodule("blocks.0").eval()
    modes, state = [module.training for module in other.modules()], torch.get_rng_state()
    Samples(lambda images: images.cpu().clamp(0, 1), 2, 2).on_train_end(trainer, other)
    assert (tmp_path / "off" / "samples.png").exists()
    assert [module.training for module in other.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
