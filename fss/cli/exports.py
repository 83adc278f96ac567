"""From the command line of `python -m fss.export` to files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from fss.cli import build, model_files
from fss.cli.requests import run_settings
from fss.evaluation.results import CHECKPOINTS
from fss.models.factored import adapter_of
from fss.svf.adapter import write_adapter

FORMATS = ("onnx", "torch", "safetensors", "adapter")


def export(cfg: DictConfig) -> None:
    """Writes what was asked for, and says how it compares with the model.

    Raises:
        FileNotFoundError: There is no such run or model file.
        OSError: A file cannot be written.
        ValueError: A setting is unknown or does not go with the format, or the model cannot be used.
    """
    if cfg.format not in FORMATS:
        raise ValueError(f"format={cfg.format}: must be one of {', '.join(FORMATS)}")
    if cfg.factored and cfg.format != "safetensors":
        raise ValueError(f"factored=true: graphs are made of merged layers, leave it out of format={cfg.format}")
    if cfg.int8 and cfg.format != "onnx":
        raise ValueError(f"int8=true: only format=onnx has it, not format={cfg.format}")
    if cfg.checkpoint not in model_files.FILES:
        raise ValueError(f"checkpoint={cfg.checkpoint}: must be {' or '.join(model_files.FILES)}")
    source, out = Path(cfg.model), None if cfg.out is None else Path(cfg.out)
    if not source.exists():
        raise FileNotFoundError(f"model={source}: no such run folder or model file")
    if cfg.format == "safetensors":
        if not source.is_dir():
            raise ValueError(f"model={source} is a file already: format=safetensors makes one of a run folder")
        print(f"Model file: {_model_file(cfg, source, out, anew=True)}")
        return
    if cfg.format == "adapter":
        if not source.is_dir():
            raise ValueError(
                f"model={source}: an adapter is made of a run folder, which knows what it started from"
            )
        print(f"Adapter: {_adapter(cfg, source, out)}")
        return
    if source.is_dir():
        source = _model_file(cfg, source, None, anew=False)
    _export(source, out, cfg.format, cfg.int8)


def _export(model: Path, out: Path | None, form: str, int8: bool) -> None:
    try:
        from fss.export.export import SUFFIXES, export_model
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'fss-svf[export]'") from error
    suffix = SUFFIXES[form]  # type: ignore[index]
    out = out or model.with_name(f"{model.stem}{'-int8' * int8}{suffix}")
    if out.suffix != suffix:
        raise ValueError(f"out={out}: a file of format={form} ends with {suffix}")
    with _quiet_tracers():
        done = export_model(model, out, form, "int8" if int8 else "float32")  # type: ignore[arg-type]
    found = done.agreement
    print(f"Graphs: {out} and {out.stem}-support{suffix}, {done.megabytes:.1f} MB; {out.name}.json describes them")
    print(f"Supports: {'any number' if done.shot is None else done.shot}; any number of queries at a time")
    print(
        f"Against torch, on noise: logits differ by at most {found.difference:.2g} ({found.relative:.2g} of the "
        f"largest), {found.flipped} of {found.pixels} pixels flipped"
    )
    if form == "onnx":
        print(f"Evaluate: python evaluate.py model={out}")


def _model_file(cfg: DictConfig, run: Path, out: Path | None, anew: bool) -> Path:
    """The model file of a run, written if there is none."""
    file = out or run / CHECKPOINTS / model_files.FILES[cfg.checkpoint]
    if file.is_file() and not anew:
        return file
    if file.suffix != ".safetensors":
        raise ValueError(f"out={file}: a model file ends with .safetensors")
    settings = _settings(cfg, run)
    model_files.write_model_file(settings, model_files.base_names(settings), cfg.checkpoint, file, cfg.factored)
    return file


def _adapter(cfg: DictConfig, run: Path, out: Path | None) -> Path:
    """Writes the singular values that a run has trained."""
    settings = _settings(cfg, run)
    checkpoint = run / CHECKPOINTS / f"{cfg.checkpoint}.ckpt"
    file = out or checkpoint.with_name(
        f"{model_files.FILES[cfg.checkpoint].partition('.')[0]}-adapter.safetensors"
    )
    if cfg.weights is not None:
        settings.backbone.weights = cfg.weights
    base = settings.start == "base_learner" and cfg.weights is None
    backbone = build.build_backbone(
        settings, pretrained=True, weights=Path(settings.method.base_checkpoint) if base else None
    )
    write_adapter(file, adapter_of(backbone, checkpoint, cfg.head))
    return file


def _settings(cfg: DictConfig, run: Path) -> DictConfig:
    settings = run_settings(run)
    if cfg.root is not None:
        settings.dataset.root = cfg.root
    return settings


@contextmanager
def _quiet_tracers() -> Iterator[None]:
    """Leaves out what torch's tracers and translators say about themselves, some of it through the root logger."""
    levels = {log: log.level for log in map(logging.getLogger, ("torch.onnx", "onnxscript", "onnx_ir", "root"))}
    for log in levels:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"torch\..*|onnxscript\..*|copyreg")
            yield
    finally:
        for log, level in levels.items():
            log.setLevel(level)
