"""Properties of every schedule."""

import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from audiotag.schedules import SCHEDULES

# Each schedule, and a value for each of its options.
CASES = [
    ("constant", {"warmup_epochs": 1.5}),
    ("constant_then_linear", {"constant_epochs": 2}),
    ("cosine", {"warmup_epochs": 1.0, "cycles": 2}),
    ("one_cycle", {"warmup_fraction": 0.25, "div": 20.0, "div_final": 1e3, "beta_1": [0.9, 0.8]}),
    ("one_cycle", {"warmup_fraction": 0.25, "div": 20.0, "div_final": 1e3, "beta_1": None}),
]
STAGE = {"learning_rate": 0.01, "epochs": 5, "steps_per_epoch": 4}
every_schedule = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[f"{name}-{index}" for index, (name, _) in enumerate(CASES)]
)


def test_no_schedule_is_missing_from_the_list():
    assert {name for name, _ in CASES} == set(SCHEDULES)


@every_schedule
def test_every_option_is_a_keyword_with_a_default(name, options):
    parameters = inspect.signature(SCHEDULES[name]).parameters
    assert set(parameters) == {*STAGE, *options}
    for key, parameter in parameters.items():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.annotation is not parameter.empty
        assert (parameter.default is parameter.empty) == (key in STAGE)


@every_schedule
def test_round_trip_the_config_equals_what_was_passed(name, options):
    schedule = SCHEDULES[name](**STAGE, **options)
    assert schedule.get_config() == STAGE | options
    config = json.loads(json.dumps(keras.optimizers.schedules.serialize(schedule)))
    assert keras.optimizers.schedules.deserialize(config).get_config() == schedule.get_config()


@every_schedule
def test_the_highest_rate_is_the_optimizers_and_none_is_negative(name, options):
    schedule = SCHEDULES[name](**STAGE, **options)
    rates = np.array([float(schedule(step)) for step in range(20)])
    assert rates.max() == pytest.approx(0.01)
    assert rates.min() >= 0


@every_schedule
@pytest.mark.parametrize("jit_compile", [False, True])
def test_graph_and_eager_rates_are_equal(name, options, jit_compile):
    schedule = SCHEDULES[name](**STAGE, **options)
    graph = tf.function(lambda step: schedule(step), jit_compile=jit_compile)
    for step in range(20):
        for kind in (tf.int64, tf.int32):
            assert float(graph(tf.constant(step, kind))) == pytest.approx(float(schedule(step)), rel=1e-5, abs=1e-9)
