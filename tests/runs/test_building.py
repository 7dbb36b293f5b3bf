from pathlib import Path

import keras
import numpy as np
import pytest
from waveforms import noise

from audiotag.config.loading import load
from audiotag.errors import ConfigError
from audiotag.runs.building import build_tagger

DEMO = Path(__file__).parents[2] / "experiments" / "demo.json"
SAMPLE_RATE = 16_000
SMALL = ("window.seconds=0.5", "model.filters=[8,16]", "waveform_augment=[]")


def small_tagger(*overrides):
    keras.utils.set_random_seed(1)
    return build_tagger(load(DEMO, [*SMALL, *overrides]), sample_rate=SAMPLE_RATE, num_classes=5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_gives_float32_logits_that_are_nearly_the_same(policy):
    single, half = small_tagger(), small_tagger(f"dtype_policy={policy}")
    assert keras.config.dtype_policy().name == "float32"  # restored
    half.set_weights(single.get_weights())
    waveform = noise(3, 10_000)
    logits = half(waveform)
    assert logits.dtype == "float32"
    assert {layer.compute_dtype for layer in half.network.layers[1:-1]} != {"float32"}
    np.testing.assert_allclose(logits, single(waveform), atol=0.02 * np.abs(single(waveform)).max())


def test_the_experiment_decides_how_windows_are_placed_and_pooled():
    tagger = small_tagger("predict.overlap=0.25", "predict.pool=max", "window.pad=zeros")
    assert (tagger.window_samples, tagger.hop, tagger.pool, tagger.pad) == (8000, 6000, "max", "zeros")
    assert tagger.window_layout == "sliding"
    tagger = small_tagger("predict.windows=random", "predict.num_windows=3")
    assert np.asarray(tagger.windows(noise(1, 30_000))[0]).shape == (1, 3, 8000)


def test_full_clip_windows_need_images_as_long_as_their_clip():
    resized = 'image_preprocess=[{"name": "resize", "height": 32, "width": 48}]'
    message = '"full_clip" needs images as long as their clip, but these always have 48 frames. Leave out the component'
    with pytest.raises(ConfigError, match=message):
        small_tagger(resized, "predict.windows=full_clip")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["augment.time_mask.max_width=99"], "augment[1] time_mask: max_width must be at most 26"),
        (["augment.frequency_mask.max_width=65"], "augment[0] frequency_mask: max_width must be at most 64"),
        (
            ["frontend.high_hz=8001"],
            "frontend log_mel: high_hz must be above 0 and at most 8000.0, half of sample_rate",
        ),
        (["frontend.num_bands=20000"], "frontend log_mel: num_bands must be at most 10000."),
        (["frontend.window_length=9999"], "frontend log_mel: window_length must be 1 to fft_length="),
        (
            ['image_preprocess=[{"name": "resize", "height": 0, "width": 9}]'],
            "image_preprocess[0] resize: height must be at least 1",
        ),
        (['model={"name": "densenet169"}'], "model densenet169: DenseNet169 needs images of at least 32 x 32"),
        (["model.dropout=1.0"], "model conv_skip: dropout must be from 0 to below 1. Received: dropout=1.0"),
        (["window.seconds=1e-5"], "window.seconds: 1e-05 s at 16000 Hz have no sample."),
    ],
)
def test_a_component_that_refuses_its_options_is_named_by_its_place(overrides, message):
    with pytest.raises(ConfigError) as error:
        small_tagger(*overrides)
    assert str(error.value).startswith(message)


def test_a_stage_may_have_its_own_augmentations():
    experiment = load(DEMO, [*SMALL, 'stages.curated.augment=[{"name": "mixup"}]'])
    noisy, curated = (
        build_tagger(experiment, sample_rate=SAMPLE_RATE, num_classes=5, stage=stage) for stage in experiment.stages
    )
    kinds = [{type(layer).__name__ for layer in tagger.preprocessor.layers} for tagger in (noisy, curated)]
    assert "TimeMask" in kinds[0] and "MixUp" not in kinds[0]
    assert "MixUp" in kinds[1] and "TimeMask" not in kinds[1]
    waveform = noise(2, 8_000)
    assert np.any(curated(waveform) != noisy(waveform))
    curated.copy_weights_from(noisy)
    np.testing.assert_array_equal(curated(waveform), noisy(waveform))
