import numpy as np
import pytest

from audiotag.schedules import Constant, ConstantThenLinear, Cosine, OneCycle


def rates(schedule):
    """The rate of every step of the stage."""
    return np.array([float(schedule(step)) for step in range(schedule.num_steps)])


# OneCycle


def test_one_cycle_has_the_rates_of_m_pinto():
    cycle = OneCycle(learning_rate=0.01, epochs=80, steps_per_epoch=1000)
    table = {
        0: (4e-4, 0.95),
        6_000: (4e-4 + 9.6e-3 * (1 - np.sqrt(0.5)) / 2, 0.95 - 0.1 * (1 - np.sqrt(0.5)) / 2),
        12_000: (5.2e-3, 0.90),
        23_999: (0.01, 0.85),
        24_000: (0.01, 0.85),
        24_001: (0.01, 0.85),
        52_000: (5.00002e-3, 0.90),
        79_999: (4e-8, 0.95),
    }
    for step, (rate, beta) in table.items():
        assert float(cycle(step)) == pytest.approx(rate, rel=1e-3 if step == 79_999 else 1e-5), step
        assert float(cycle.momentum(step)) == pytest.approx(beta, rel=1e-6), step


def test_one_cycle_has_its_highest_rate_where_fastai_has_it():
    cycle = OneCycle(learning_rate=1.0, epochs=11, steps_per_epoch=1)  # floor(3.3) = 3 steps rise, 8 fall
    half = lambda a, b, fraction: b + (a - b) * (1 + np.cos(np.pi * fraction)) / 2
    expected = [half(0.04, 1, n / 3) for n in range(3)] + [half(1, 4e-6, n / 8) for n in range(8)]
    np.testing.assert_allclose(rates(cycle), expected, rtol=1e-5, atol=1e-7)
    betas = [half(0.95, 0.85, n / 3) for n in range(3)] + [half(0.85, 0.95, n / 8) for n in range(8)]
    np.testing.assert_allclose([float(cycle.momentum(n)) for n in range(11)], betas, rtol=1e-6)
    assert float(cycle(11)) == pytest.approx(4e-6)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_one_cycle_of_a_few_steps_reaches_its_highest_rate(epochs):
    cycle = OneCycle(learning_rate=1.0, epochs=epochs, steps_per_epoch=1)  # 0 steps rise
    assert rates(cycle)[0] == 1
    assert np.all(np.diff(rates(cycle)) < 0)


def test_one_cycle_starts_peaks_and_ends_at_its_options():
    cycle = OneCycle(
        learning_rate=2.0,
        epochs=2,
        steps_per_epoch=5,
        warmup_fraction=0.5,
        div=4.0,
        div_final=8.0,
        beta_1=(0.9, 0.5),
    )
    for step, rate, beta in ((0, 0.5, 0.9), (5, 2.0, 0.5), (10, 0.25, 0.9)):
        assert (float(cycle(step)), float(cycle.momentum(step))) == pytest.approx((rate, beta))


def test_one_cycle_without_beta_1_has_no_momentum():
    cycle = OneCycle(learning_rate=1.0, epochs=1, steps_per_epoch=5, beta_1=None)
    with pytest.raises(ValueError, match=r"^momentum needs beta_1, two numbers\. Received: beta_1=None$"):
        cycle.momentum(0)


# ConstantThenLinear


@pytest.mark.parametrize("steps_per_epoch", [1, 37])
@pytest.mark.parametrize(
    ("epochs", "constant_epochs", "rate", "table"),
    [
        (500, 100, 1e-3, {1: 1e-3, 100: 1e-3, 101: 0.9975e-3, 300: 0.5e-3, 499: 2.5e-6, 500: 0.0}),
        (30, 5, 2e-4, {1: 2e-4, 5: 2e-4, 6: 1.92e-4, 29: 8e-6, 30: 0.0}),
        (30, 5, 1e-4, {1: 1e-4, 5: 1e-4, 6: 0.96e-4, 29: 4e-6, 30: 0.0}),
    ],
)
def test_constant_then_linear_has_the_rates_of_dorfer_and_widmer(epochs, constant_epochs, rate, table, steps_per_epoch):
    options = {"epochs": epochs, "steps_per_epoch": steps_per_epoch, "constant_epochs": constant_epochs}
    schedule = ConstantThenLinear(learning_rate=rate, **options)
    for epoch, expected in table.items():
        first = (epoch - 1) * steps_per_epoch
        for step in (first, first + steps_per_epoch - 1):
            assert float(schedule(step)) == pytest.approx(expected, rel=1e-6)


def test_without_constant_epochs_the_first_is_already_lower():
    schedule = ConstantThenLinear(learning_rate=1.0, epochs=4, steps_per_epoch=2)
    np.testing.assert_allclose(rates(schedule), np.repeat([0.75, 0.5, 0.25, 0], 2))


# Cosine and Constant


def test_cosine_falls_from_the_rate_to_zero():
    schedule = Cosine(learning_rate=2.0, epochs=4, steps_per_epoch=25)
    np.testing.assert_allclose(rates(schedule), 1 + np.cos(np.pi * np.arange(100) / 100), rtol=1e-5, atol=1e-6)


def test_cosine_falls_in_the_steps_after_the_warmup():
    schedule = Cosine(learning_rate=1.0, epochs=3, steps_per_epoch=4, warmup_epochs=1.0)
    fall = (1 + np.cos(np.pi * np.arange(8) / 8)) / 2
    np.testing.assert_allclose(rates(schedule), [0.25, 0.5, 0.75, 1.0, *fall], rtol=1e-5)


def test_cosine_restarts_with_every_cycle():
    schedule = Cosine(learning_rate=1.0, epochs=8 * 3, steps_per_epoch=7, cycles=8)
    cycle = (1 + np.cos(np.pi * np.arange(21) / 21)) / 2
    np.testing.assert_allclose(rates(schedule), np.tile(cycle, 8), rtol=1e-5, atol=1e-7)


def test_constant_is_constant_after_its_warmup():
    np.testing.assert_allclose(rates(Constant(learning_rate=3.0, epochs=2, steps_per_epoch=2)), [3, 3, 3, 3])
    warmup = Constant(learning_rate=3.0, epochs=2, steps_per_epoch=3, warmup_epochs=0.5)
    np.testing.assert_allclose(rates(warmup), [1.5, 3, 3, 3, 3, 3])  # half an epoch is rounded to two steps


# Options

CONSTANT_EPOCHS = "constant_epochs must be from 0 to below the stage's 10 epochs. Received: constant_epochs="
SHORT = {"learning_rate": 1.0, "epochs": 10, "steps_per_epoch": 3}


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        (
            Constant,
            {"warmup_epochs": 10.5},
            r"warmup_epochs must be from 0 to the stage's 10 epochs. Received: warmup_epochs=10.5",
        ),
        (
            Cosine,
            {"warmup_epochs": -1.0},
            r"warmup_epochs must be from 0 to the stage's 10 epochs. Received: warmup_epochs=-1.0",
        ),
        (Cosine, {"cycles": 0}, r"cycles must be at least 1. Received: cycles=0"),
        (ConstantThenLinear, {"constant_epochs": 10}, CONSTANT_EPOCHS + "10"),
        (
            ConstantThenLinear,
            {"epochs": 1},
            r"the rate of the last epoch is 0, so a stage of 1 epoch would .* epochs=1. Use 2 .*",
        ),
        (ConstantThenLinear, {"constant_epochs": -1}, CONSTANT_EPOCHS + "-1"),
        (
            OneCycle,
            {"warmup_fraction": 1.0},
            r"warmup_fraction must be from 0 to below 1. Received: warmup_fraction=1.0",
        ),
        (OneCycle, {"div": 0.5}, r"div and div_final must be at least 1. Received: div=0.5, .*"),
        (OneCycle, {"div_final": 0.0}, r"div and div_final must be at least 1. Received: .*div_final=0.0"),
        (OneCycle, {"beta_1": (0.9, 1.0)}, r"beta_1 must be two numbers from 0 to below 1, or None. Received: .*"),
        (OneCycle, {"beta_1": (0.9,)}, r"beta_1 must be two numbers from 0 to below 1, or None. Received: .*"),
    ],
)
def test_an_option_out_of_range_is_refused(schedule, options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        schedule(**SHORT | options)
