"""The loop: it learns, resumes exactly, shards, saves when asked to stop."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sdvar_jax.errors import SdvarError
from sdvar_jax.training import OptimizerConfig, RunConfig
from sdvar_jax.training.loop import Observers, fit
from sdvar_jax.training.sharding import data_mesh
from sdvar_jax.training.sources import ResidentSource
from sdvar_jax.training.step import Task

OPTIMIZER = OptimizerConfig(learning_rate=0.05, warmup_steps=2, weight_decay=0.01)


def linear_loss(params, extra, batch, key, frozen):
    """A linear model on noisy inputs, so that a run that resumes must find its noise again."""
    inputs = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
    made = inputs @ params["w.kernel"] + frozen["offset"]
    loss = jnp.mean((made - batch["y"]) ** 2)
    return loss, ({"noise": jnp.mean(inputs)}, extra + 1)


def count_calls(state, side, key, total):
    return state.replace(extra=side)


TASK = Task(loss=linear_loss, after=count_calls)


class Source(ResidentSource):
    """Pairs of a linear law; tells how far it was read, as a loader would."""

    def __init__(self, stop_after=None):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((64, 4)).astype(np.float32)
        y = x @ np.array([[1.0], [-2.0], [3.0], [0.5]], np.float32)
        super().__init__({"x": x, "y": y}, 16)
        self.read, self.stop_after = 0, stop_after

    def fetch(self, steps, mesh):
        self.read += steps
        if self.stop_after is not None and self.read > self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    def get_state(self):
        return {"read": self.read}

    def set_state(self, state):
        self.read = state["read"]


def train(source=None, steps=12, output=None, resume=False, mesh=None, **run):
    run = {"batch_size": 16, "steps": steps, "steps_per_dispatch": 3, "ema_decay": 0.9, **run}
    observers = run.pop("observers", Observers())
    return fit(
        "test",
        run.pop("task", TASK),
        {"w.kernel": jnp.zeros((4, 1))},
        source or Source(),
        RunConfig(**run),
        OPTIMIZER,
        frozen={"offset": jnp.zeros(())},
        extra=jnp.zeros((), jnp.int32),
        observers=observers,
        mesh=mesh or data_mesh(jax.devices()[:1]),
        output=output,
        resume=resume,
        identity="these settings",
        progress=False,
    )


def test_the_loss_falls():
    losses = train(steps=30).history["loss"]
    assert losses.shape == (30,)
    assert losses[-3:].mean() < 0.5 * losses[:3].mean()


def test_each_step_has_its_own_noise():
    noise = train().history["noise"]
    assert len(set(noise.tolist())) == len(noise)


def test_a_last_dispatch_may_be_shorter():
    assert train(steps=7).history["loss"].shape == (7,)


def test_the_number_of_steps_a_dispatch_does_not_change_the_losses():
    np.testing.assert_allclose(
        train(steps_per_dispatch=1).history["loss"],
        train(steps_per_dispatch=12).history["loss"],
        rtol=1e-5,
    )


def test_the_average_trails_the_weights():
    state = train().state
    weights, average = state.params["w.kernel"], state.averaged["w.kernel"]
    assert state.averaged is state.ema
    assert 0 < jnp.linalg.norm(average) < jnp.linalg.norm(weights)


def test_what_follows_the_step_sees_its_side_result():
    assert int(train().state.extra) == 12


def test_a_run_that_was_killed_goes_on_with_the_same_losses(tmp_path):
    unbroken = train().history["loss"]
    with pytest.raises(SystemExit) as left:
        train(Source(stop_after=3), output=tmp_path)
    assert left.value.code == 128 + signal.SIGTERM
    source = Source()
    resumed = train(source, output=tmp_path, resume=True)
    np.testing.assert_array_equal(resumed.history["loss"], unbroken[6:])
    assert source.read == 12


def test_checkpoints_on_the_way_are_enough_after_a_crash(tmp_path):
    class Crash(Exception):
        pass

    def crash(params):
        raise Crash

    observers = Observers(evaluate=crash)
    unbroken = train().history["loss"]
    with pytest.raises(Crash):
        train(output=tmp_path, checkpoint_every=3, evaluations=3, observers=observers)
    resumed = train(output=tmp_path, resume=True)
    np.testing.assert_array_equal(resumed.history["loss"], unbroken[3:])


def test_a_run_with_other_settings_is_not_resumed(tmp_path):
    train(output=tmp_path)
    state = tmp_path / "state" / "12" / "run" / "metadata"
    state.write_text(state.read_text().replace("these settings", "those settings"))
    with pytest.raises(SdvarError, match="a run with other settings"):
        train(output=tmp_path, resume=True)


def test_eight_devices_give_the_losses_of_one():
    assert len(jax.devices()) == 8
    one, eight = train(), train(mesh=data_mesh())
    np.testing.assert_allclose(eight.history["loss"], one.history["loss"], rtol=1e-5)
    assert len(eight.state.params["w.kernel"].sharding.device_set) == 8


def test_a_batch_that_cannot_be_split_is_refused():
    with pytest.raises(SdvarError, match="a batch of 12 cannot be split over 8 devices"):
        train(mesh=data_mesh(), batch_size=12)


def test_a_loss_that_is_no_number_ends_the_run():
    def broken(params, extra, batch, key, frozen):
        loss, aux = linear_loss(params, extra, batch, key, frozen)
        return loss / 0.0, aux

    with pytest.raises(SdvarError, match="not a number any more at step 3"):
        train(task=Task(loss=broken))


def test_numbers_and_pictures_are_written_on_the_way(tmp_path):
    observers = Observers(
        evaluate=lambda params: {"weight": float(params["w.kernel"][0, 0])},
        picture=lambda params: Image.new("RGB", (8, 8)),
    )
    train(output=tmp_path, evaluations=2, pictures=4, observers=observers)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if "loss" in line]
    measured = [line for line in lines if "heldout/weight" in line]
    assert [line["step"] for line in trained] == [3, 6, 9, 12]
    assert {"learning_rate", "gradient_norm", "steps_per_second"} <= set(trained[0])
    assert [line["step"] for line in measured] == [6]
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["step_0000003.png", "step_0000006.png", "step_0000009.png"]
    assert list((tmp_path / "tensorboard").iterdir())


def test_observers_can_be_warmed_up_in_the_background():
    seen = []

    def evaluate(params):
        seen.append(float(params["w.kernel"][0, 0]))
        return {}

    train(observers=Observers(evaluate=evaluate), warm_observers=True)
    assert seen == [0.0]


def test_a_run_by_the_clock_ends_with_the_rate_at_zero():
    fitted = train(steps=None, minutes=0.15, reserve_seconds=0.0, steps_per_dispatch=100)
    assert fitted.seconds < 12.0
    assert fitted.history["learning_rate"][-1] < 0.05 * OPTIMIZER.learning_rate
