import numpy as np
import pytest

from audiotag.evaluation.forecasting import EXPONENTS, fit_power_laws, forecast

SIZES = np.array([400.0, 200.0, 100.0, 50.0])


def measured(rng, true, *, num_draws=3, num_recordings=80, training_sd=0.02, replicates=120):
    """Scores of nested subsets on drawn recordings, as `forecast` takes them; one training on the largest."""
    recordings = rng.normal(0, 0.3, num_recordings)  # how easy each is, for all models
    counts = rng.multinomial(num_recordings, np.full(num_recordings, 1 / num_recordings), replicates)
    counts[0] = 1
    noise = counts @ recordings / num_recordings  # [R]
    sizes = [1, *[num_draws] * (len(SIZES) - 1)]
    trainings = [rng.normal(0, training_sd * (SIZES[0] / n) ** 0.5, count) for n, count in zip(SIZES, sizes)]
    return [true(n) + each + noise[:, None] for n, each in zip(SIZES, trainings)]


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_an_exact_power_law_is_found(exponent):
    true = 0.9 - 0.2 * (SIZES / 400) ** -exponent if exponent < 1 else 0.9 - 0.02 * (SIZES / 400) ** -exponent
    law = fit_power_laws(SIZES, true)
    assert law.c.item() == exponent
    np.testing.assert_allclose(law(SIZES), true)


def test_a_curve_neither_falls_nor_passes_1():
    falling = fit_power_laws(SIZES, np.array([0.7, 0.75, 0.8, 0.85]))
    assert falling(800) == falling(50) and 0.7 < falling(50) < 0.8
    steep = fit_power_laws(SIZES, np.array([0.99, 0.7, 0.4, 0.1]))
    assert steep.a <= 1 and 0.9 < steep(100_000) <= 1
    assert np.isnan(fit_power_laws(SIZES, np.array([0.9, np.nan, 0.7, 0.6]))(800))


def test_intervals_contain_the_true_value_19_times_in_20():
    covered, widths = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        true = lambda n, fall=rng.uniform(0.02, 0.2), c=rng.uniform(0.2, 1.2): 0.92 - fall * (n / 400) ** -c
        found = forecast(SIZES, measured(rng, true))
        value, low, high = found.at(800)
        assert low <= value <= high
        covered.append(low <= true(800) + rng.normal(0, 0.02 / 2**0.5) <= high)
        gain, low, high = found.gain(800)
        covered[-1] = [covered[-1], low <= true(800) - true(400) <= high]
        widths.append(high - low)
    assert 0.9 < np.mean([one for one, _ in covered]) <= 0.99
    assert 0.9 < np.mean([gain for _, gain in covered])
    assert np.median(widths) < 0.1


def test_few_recordings_and_unsteady_trainings_widen_the_interval():
    width = lambda **options: np.ptp(
        forecast(SIZES, measured(np.random.default_rng(1), lambda n: 0.8 - 0.1 * (n / 400) ** -0.5, **options)).at(800)
    )
    assert width(num_recordings=20, training_sd=0.005) > 1.3 * width(training_sd=0.005)
    assert width(training_sd=0.06) > 1.3 * width(training_sd=0.005)
