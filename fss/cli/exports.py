"""From the command line of `python -m fss.export` to files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from fss.cli import build, kinds, model_files
from fss.cli.requests import run_settings
from fss.evaluation.results import CHECKPOINTS
from fss.export.files import description_file, support_file
from fss.files.whole import check_target, whole
from fss.models.factored import adapter_of
from fss.svf.adapter_file import write_adapter

if TYPE_CHECKING:
    from fss.export.export import Exported

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors", "adapter": ".safetensors"}
_KINDS = {
    "model": kinds.path,
    "format": kinds.one_of(*SUFFIXES),
    "checkpoint": kinds.one_of(*model_files.FILES),
    **dict.fromkeys(("out", "root", "weights"), kinds.optional(kinds.path)),
    **dict.fromkeys(("factored", "int8", "head"), kinds.flag),
}


def export(cfg: DictConfig) -> None:
    """Writes what was asked for, and says how it compares with the model.

    Raises:
        FileNotFoundError: There is no such run or model file.
        OSError: A file cannot be written.
        ValueError: A setting is unknown or does not go with the format, or the model cannot be used.
    """
    kinds.check_given(cfg)
    kinds.check(cfg, _KINDS)
    if cfg.factored and cfg.format != "safetensors":
        raise ValueError(f"factored=true: graphs are made of merged layers, leave it out of format={cfg.format}")
    if cfg.int8 and cfg.format != "onnx":
        raise ValueError(f"int8=true: only format=onnx has it, not format={cfg.format}")
    source = Path(cfg.model)
    if not source.exists():
        raise FileNotFoundError(f"model={source}: no such run folder or model file")
    if cfg.format == "safetensors" and not source.is_dir():
        raise ValueError(f"model={source} is a file already: format=safetensors makes one of a run folder")
    if cfg.format == "adapter" and not source.is_dir():
        raise ValueError(f"model={source}: an adapter is made of a run folder, which knows what it started from")
    model = source / CHECKPOINTS / model_files.FILES[cfg.checkpoint] if source.is_dir() else source
    file = _target(cfg, model)
    if cfg.format in ("safetensors", "adapter"):
        settings = _settings(cfg, source)
        _check_targets(file)
        if cfg.format == "adapter":
            _write_adapter(cfg, settings, file)
            print(f"Adapter: {file}")
        else:
            _write_model_file(cfg, settings, file)
            print(f"Model file: {file}")
        return
    bare = None if model.is_file() else _settings(cfg, source)  # of a run without a model file
    _check_targets(file, support_file(file), description_file(file))
    export_model = _exporter()
    if bare is not None:
        _write_model_file(cfg, bare, model)
    with _quiet_tracers():
        done = export_model(model, file, cfg.format, "int8" if cfg.int8 else "float32")
    _print_export(done, file)


def _target(cfg: DictConfig, model: Path) -> Path:
    """The file to write: `out`, or one beside the model file."""
    suffix = SUFFIXES[cfg.format]
    if cfg.out is None:
        more = "-adapter" if cfg.format == "adapter" else "-int8" * cfg.int8
        return model.with_name(f"{model.stem}{more}{suffix}")
    if Path(cfg.out).suffix != suffix:
        raise ValueError(f"out={cfg.out}: a file of format={cfg.format} ends with {suffix}")
    return Path(cfg.out)


def _check_targets(*files: Path) -> None:
    """Raises an OSError if one of the files could not be written: an export takes minutes."""
    for file in files:
        check_target(file)


def _exporter() -> Callable[..., Exported]:
    try:
        from fss.export.export import export_model
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: pip install onnx onnxruntime onnxscript") from error
    return export_model


def _print_export(done: Exported, file: Path) -> None:
    found = done.agreement
    print(
        f"Graphs: {file} and {support_file(file).name}, {done.megabytes:.1f} MB; {description_file(file).name} "
        "describes them"
    )
    print(f"Supports: {'any number' if done.shot is None else done.shot}; any number of queries at a time")
    print(
        f"Against torch, on noise: logits differ by at most {found.difference:.2g} ({found.relative:.2g} of the "
        f"largest), {found.flipped} of {found.pixels} pixels flipped"
    )
    if file.suffix == SUFFIXES["onnx"]:
        print(f"Evaluate: python evaluate.py model={file}")


def _write_model_file(cfg: DictConfig, settings: DictConfig, file: Path) -> None:
    """Writes the model file of a run."""
    model_files.write_model_file(settings, model_files.base_names(settings), cfg.checkpoint, file, cfg.factored)


def _write_adapter(cfg: DictConfig, settings: DictConfig, file: Path) -> None:
    """Writes the singular values that a run has trained."""
    checkpoint = Path(settings.run_dir) / CHECKPOINTS / f"{cfg.checkpoint}.ckpt"
    if cfg.weights is not None:
        settings.backbone.weights = cfg.weights
    base = settings.start == "base_learner" and cfg.weights is None
    backbone = build.build_backbone(
        settings, pretrained=True, weights=Path(settings.method.base_checkpoint) if base else None
    )
    adapter = adapter_of(backbone, checkpoint, cfg.head)
    with whole(file) as unfinished:
        write_adapter(unfinished, adapter)


def _settings(cfg: DictConfig, run: Path) -> DictConfig:
    """The settings of a run that has the checkpoint.

    Raises:
        FileNotFoundError: It has not, or says nothing of its settings.
    """
    settings = run_settings(run)
    checkpoint = run / CHECKPOINTS / f"{cfg.checkpoint}.ckpt"
    if not checkpoint.is_file():
        raise FileNotFoundError(
            f"no {checkpoint}: model={run} has not been trained so far; train it, or name another"
        )
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
