"""Public datasets: miniature trees give the exact table of clips, and variations of them the same or a refusal."""

import pytest
from dataset_trees import EXPECTED, TREES, audio
from source_folders import make

from audiotag.data.clips import read_clips, write_clips
from audiotag.data.sources import find_clips
from audiotag.errors import DataError


@pytest.mark.parametrize("name", TREES)
def test_a_dataset_gives_its_clips_folds_and_subsets(tmp_path, name):
    layout, files, clips = TREES[name]
    source = make(tmp_path / "data", files)
    for chosen in ("auto", layout):
        found = find_clips(source, layout=chosen)
        assert found.layout == layout
        assert found.clips[EXPECTED].values.tolist() == clips
    write_clips(tmp_path / "clips.csv", found.clips)
    assert len(read_clips(tmp_path / "clips.csv")) == len(clips)


def moved(old, new):
    """Renames files that begin with a path."""
    return lambda files: {
        new + name[len(old) :] if name.startswith(old) else name: text for name, text in files.items()
    }


def without(*starts):
    return lambda files: {name: text for name, text in files.items() if not name.startswith(starts)}


def plus(more):
    return lambda files: files | more


def text(name, old, new):
    """Changes the text of a file; "" as the old one appends."""
    return lambda files: files | {name: files[name].replace(old, new) if old else files[name] + new}


def column(name, header, value, sep=","):
    """Adds a column to a table with a header."""
    return lambda files: (
        files
        | {
            name: "".join(
                f"{line}{sep}{value if number else header}\n" for number, line in enumerate(files[name].splitlines())
            )
        }
    )


STRAY = {"Thumbs.db": b"x", ".DS_Store": b"x", "notes.txt": "recorded in May", "__MACOSX/audio/._a.wav": b"x"}
BOM = "\ufeff"
DEV, EVAL, US = "FSD50K.ground_truth/dev.csv", "FSD50K.ground_truth/eval.csv", "metadata/UrbanSound8K.csv"
TRAIN_LIST, TAU_TRAIN = "validation_list.txt", "evaluation_setup/fold1_train.csv"
BALANCED, NIGHT = "balanced_train_segments.csv", "night.Table.1.selections.txt"
# (dataset, change, None if the clips stay the same, or the message of the refusal)
VARIATIONS = [
    ("FSD50K", moved("FSD50K.dev_audio", "dev"), None),
    ("FSD50K", moved("FSD50K.eval_audio", "FSD50K.EVAL_AUDIO"), None),
    ("FSD50K", moved("FSD50K.ground_truth", "meta"), None),
    ("FSD50K", without(DEV), "Expected FSD50K's dev.csv"),
    ("FSD50K", without("FSD50K.ground_truth"), "Expected FSD50K's dev.csv"),
    ("FSD50K", without("FSD50K.dev_audio"), "2 of 2 clips are not there|1 of 1 clips are not there"),
    ("FSD50K", plus(STRAY), None),
    ("FSD50K", column(DEV, "uploader", "me"), None),
    ("FSD50K", text(DEV, ",train", ",TRAIN"), None),
    ("FSD50K", text(DEV, ",val", ",holdout"), "split is 'holdout'. Expected train or val"),
    ("FSD50K", text(DEV, "Bark,", "Brak,"), "unknown label 'Brak'"),
    ("FSD50K", text(DEV, "64760", "64760.wav"), None),
    ("UrbanSound8K", without(US), "UrbanSound8K.csv is missing"),
    ("UrbanSound8K", moved("metadata/", ""), None),
    ("UrbanSound8K", moved("audio/", ""), None),
    ("UrbanSound8K", moved("audio/fold5", "audio/Fold5"), None),
    ("UrbanSound8K", moved("audio/fold5", "audio/fold_5"), "2 of 3 clips are not there"),
    ("UrbanSound8K", plus(STRAY | audio("audio/fold5/._100032-3-0-0.wav", "audio/fold5/new.wav")), None),
    ("UrbanSound8K", column(US, "split", "train"), None),
    ("UrbanSound8K", text(US, ",5,3,", ",x,3,"), "fold is 'x'|not there"),
    ("UrbanSound8K", lambda files: files | {US.replace(".csv", "_copy.csv"): files[US]}, "several tables like"),
    ("Speech Commands", without("testing_list"), "testing_list.txt: not found"),
    ("Speech Commands", without("validation_list", "testing_list"), "validation_list.txt: not found"),
    ("Speech Commands", moved("testing_list", "TESTING_LIST"), None),
    ("Speech Commands", text(TRAIN_LIST, "no/", "no/missing_"), "line 1: the clip 'no/missing_.*is not in"),
    ("Speech Commands", text("testing_list.txt", "", "no/0a9f9af7_nohash_0.wav\n"), "listed twice"),
    ("Speech Commands", text(TRAIN_LIST, "no/", "./no/"), None),
    ("Speech Commands", plus(STRAY), None),
    ("Speech Commands", moved("_background_noise_", "_Background_Noise_"), None),
    ("AudioFolder", without("test/metadata"), "test: has recordings, and no metadata file"),
    ("AudioFolder", moved("validation", "val"), None),
    ("AudioFolder", moved("train", "TRAIN"), None),
    ("AudioFolder", moved("train", "recordings"), "some are splits and some are not"),
    ("AudioFolder", column("train/metadata.csv", "transcription", "x"), None),
    ("AudioFolder", column("train/metadata.csv", "labels", "x"), "several columns of labels: label, labels"),
    ("AudioFolder", text("train/metadata.csv", "label", "sound"), "no column of labels"),
    ("AudioFolder", text("train/metadata.csv", "a.wav", "A.WAV"), "1 of 2 clips are not there: 'train/A.WAV'"),
    ("AudioFolder, JSON", text("metadata.jsonl", '"label"', '"sound"'), "no column of labels"),
    ("AudioFolder, JSON", text("metadata.jsonl", "", "{broken\n"), "line 5: expected a JSON object"),
    ("AudioFolder, JSON", plus(STRAY), None),
    ("ESC-50", moved("meta/", "metadata/"), None),
    ("ESC-50", moved("audio/", "Audio/"), None),
    ("ESC-50", without("meta/esc50.csv"), "meta: no recordings that audiotag reads"),
    ("ESC-50", without("meta/"), "the classes would be audio"),
    ("ESC-50", plus(STRAY), None),
    (
        "ESC-50",
        text("meta/esc50.csv", ",1,0,dog", ",0,0,dog"),
        "esc50.csv line 2: fold is 0. Expected the dataset's own",
    ),
    ("ESC-50", column("meta/esc50.csv", "note", "x"), None),
    ("ESC-50", lambda files: files | {"meta/esc50.csv": BOM + files["meta/esc50.csv"].replace("\n", "\r\n")}, None),
    ("TAU", without("evaluation_setup"), "expected evaluation_setup/ with fold1_train.csv"),
    ("TAU", without("meta.csv"), "meta.csv is missing|several tables like meta.csv"),
    ("TAU", without("audio/airport"), "not there"),
    ("TAU", text(TAU_TRAIN, "", "audio/airport-barcelona-0-1-a.wav\tairport\n"), "trains on .* and evaluates it"),
    ("TAU", text(TAU_TRAIN, "", "audio/park-x-0-1-a.wav\tpark\n"), "lists 'audio/park-x-0-1-a.wav', which is not in"),
    ("TAU", moved("audio/", "AUDIO/"), None),
    ("TAU", plus(STRAY), None),
    ("BirdNET", moved("Noise", "noise"), None),
    ("BirdNET", plus(STRAY), None),
    ("BirdNET", plus(audio("deep/er/x.wav")), "expected <labels>/<file>"),
    ("BirdNET", plus({"Corvus corax_Common Raven/a.m4a": None}), "no recordings that audiotag reads"),
    (
        "BirdNET",
        plus({"labels.csv": "file,species\na.wav,Corvus corax\n"}),
        "has file,species|may be a table of labels",
    ),
    ("AudioSet", moved("wav/", "balanced/"), None),
    ("AudioSet", moved(BALANCED, "part1.csv"), "expected a name with balanced_train"),
    ("AudioSet", text(BALANCED, '"/m/012xff"', "?"), "eval_segments.csv line 2: unknown label 'Toothbrush'"),
    ("AudioSet", text(BALANCED, "30.000", "thirty"), "Expected YTID, start, end"),
    ("AudioSet", plus(audio("wav/--PJHxphWEs_30.000.wav", "wav/--PJHxphWEs_30000.flac")), "both fit the segment"),
    ("AudioSet", without("wav/"), "no recording is called by a video"),
    ("Raven", text(NIGHT, "Annotation", "Notes"), "no column of labels"),
    ("Raven", text(NIGHT, "frog", ""), "has no label"),
    ("Raven", text(NIGHT, "1.900", "1.500"), "has no length"),
    ("Raven", moved("night.wav", "evening.wav"), "no recording, or no single one, is called like it"),
    ("Raven", moved("night.wav", "NIGHT.WAV"), None),
    ("Raven", column(NIGHT, "Observer", "me", "\t"), None),
    ("Raven", plus(STRAY | audio("dusk.wav")), None),
    ("Audacity", text("night.txt", "", "2.0\n"), "Expected start, end and label, separated by tabs"),
    ("Audacity", text("night.txt", "", "1.0\t1.0\tclick\n"), "has no length"),
    ("Audacity", plus(STRAY), None),
]


@pytest.mark.check("C5", len(VARIATIONS))
@pytest.mark.parametrize("number", range(len(VARIATIONS)))
def test_a_variation_is_read_alike_or_refused(tmp_path, number, monkeypatch):
    monkeypatch.setenv("PATH", "")  # without ffmpeg
    name, change, message = VARIATIONS[number]
    _, files, clips = TREES[name]
    changed = change(files)
    source = make(tmp_path / "data", changed)
    if message:
        with pytest.raises(DataError, match=message):
            find_clips(source)
        return
    found = find_clips(source).clips[EXPECTED].values.tolist()
    assert sorted(clip[1:4] for clip in found) == sorted(clip[1:4] for clip in clips)
    by_name = {clip[0]: clip for clip in clips}
    assert all(clip == by_name.get(clip[0], clip) for clip in found)


def test_there_are_at_least_sixty_variations():
    assert len(VARIATIONS) >= 60
