"""What to do about a training whose loss or weights are no longer finite."""

MEND = (
    "reduce tuning.head_lr and tuning.backbone_lr, set trainer.gradient_clip_val, or use precision=bf16-mixed "
    "instead of 16-mixed"
)
