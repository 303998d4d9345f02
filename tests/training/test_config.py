"""Settings refuse what cannot work, in words."""

import pytest
from training_models import VAR_CONFIG

from sdvar_jax.errors import SdvarError
from sdvar_jax.sampling import SamplingConfig
from sdvar_jax.training import DistillConfig, OptimizerConfig, RunConfig, VARTrainingConfig

RUN = RunConfig(steps=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RunConfig(), "either the steps or the minutes"),
        (lambda: RunConfig(steps=1, minutes=1.0), "either the steps or the minutes"),
        (lambda: RunConfig(steps=0), "steps must be positive"),
        (lambda: RunConfig(steps=1, batch_size=0), "batch_size must be positive"),
        (lambda: RunConfig(steps=1, ema_decay=1.0), "ema_decay"),
        (lambda: RunConfig(steps=1, compute="int8"), "unknown compute dtype"),
        (lambda: OptimizerConfig(schedule="sawtooth"), "unknown schedule 'sawtooth'"),
        (lambda: OptimizerConfig(learning_rate=0.0), "learning_rate must be positive"),
        (lambda: VARTrainingConfig(VAR_CONFIG, RUN, attention="magic"), "unknown attention"),
        (lambda: VARTrainingConfig(VAR_CONFIG, RUN, label_smoothing=1.0), "label_smoothing"),
        (lambda: DistillConfig(RUN, own_share=2.0), "own_share"),
        (lambda: DistillConfig(RUN, sampling=SamplingConfig(more_smooth=True)), "more_smooth"),
        (lambda: DistillConfig(RUN, cfg_range=(2.0, 1.0)), "cfg_range"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(SdvarError, match=message):
        make()
