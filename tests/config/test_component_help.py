import subprocess
import sys

import pytest

from audiotag.config import signatures
from audiotag.config.component_help import component_lists, explain_component, list_components
from audiotag.errors import ConfigError


def test_every_list_of_an_experiment_is_there_with_its_components():
    lists = {keys: [section.__name__ for section in sections] for keys, sections in component_lists().items()}
    for keys, module, *tables in [
        ("waveform_augment", "audiotag.layers", "WAVEFORM_AUGMENTATIONS"),
        ("frontend", "audiotag.layers", "FRONTENDS"),
        ("image_preprocess", "audiotag.layers", "IMAGE_PREPROCESSING", "IMAGE_AUGMENTATIONS"),
        ("augment, stages[].augment", "audiotag.layers", "IMAGE_AUGMENTATIONS"),
        ("model", "audiotag.models", "MODELS"),
        ("stages[].optimizer", "audiotag.optimizers", "OPTIMIZERS"),
        ("stages[].schedule", "audiotag.schedules", "SCHEDULES"),
        ("stages[].loss, stages[].noisy_loss", "audiotag.losses", "LOSSES"),
        ("stages[].select.rule", "audiotag.crossval.label_rules", "RULES"),
        ("stages[].callbacks", "audiotag.training.callbacks", "CALLBACKS"),
    ]:
        assert lists[keys] == [name for table in tables for name in signatures.component_names(module, table)]


def test_every_component_has_a_line():
    lines = list_components().splitlines()
    assert "frontend" in lines
    assert "  log_mel                   Turns waveforms into mel spectrograms in decibels." in lines
    assert "  folders                   one folder of audio per class" in lines
    for sections in component_lists().values():
        for section in sections:
            assert any(line.split()[:1] == [section.__name__] and len(line.split()) > 2 for line in lines)


def test_a_component_is_explained_with_its_options():
    text = explain_component("mixup")
    assert text.startswith(
        "mixup, in waveform_augment, image_preprocess, augment, stages[].augment\n\nAdds pairs of clips"
    )
    assert "Beta(alpha, alpha)" in text  # its docstring
    assert '  pairing: "permutation" | "reverse", "permutation" by default\n' in text
    assert "  stop_epoch: integer | null, null by default" in text
    assert "  seed: " not in text.partition("In an experiment:")[2]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("frequency_mask", "  max_width: integer | null, null by default"),
        ("conv_skip", "  filters: list of integer, [64, 128, 256, 512] by default"),
        ("resize", "  height: integer, required"),
        ("one_cycle", "  beta_1: [number, number] | null, [0.95, 0.85] by default"),
        ("adam", "  weight_decay: number | null, null by default"),
        ("adam", "  use_ema: true or false, false by default"),
        ("EarlyStopping", "  monitor: string | null, null by default"),
    ],
)
def test_options_have_types_in_the_terms_of_json(name, line):
    assert line in explain_component(name).splitlines()


def test_a_dataset_layout_is_explained():
    assert explain_component("folders") == "folders, in make-records --layout\n\none folder of audio per class"


def test_a_component_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="no component 'mixp'. Did you mean 'mixup'\\? Accepted: gain, white_noise, "):
        explain_component("mixp")


def test_it_loads_neither_keras_nor_tensorflow():
    code = "import sys; from audiotag.cli import main; main(['components', 'adam'], standalone_mode=False)"
    code += "; print(*sys.modules)"
    lines = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[0] == "adam, in stages[].optimizer"
    assert not {"tensorflow", "keras", "pandas", "audiotag.optimizers"} & set(lines[-1].split())
