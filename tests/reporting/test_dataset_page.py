import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from click.testing import CliRunner

from audiotag.cli import main
from audiotag.data.clips import read_clips
from audiotag.errors import DataError
from audiotag.reporting.dataset_page import dataset_tables, measure_file, read_source, write_dataset_page
from audiotag.reporting.sample_clips import sample_cards

REAL = Path(__file__).parents[3] / "shared" / "data" / "fsdkaggle2019"
HOSTILE = ('<img src=x onerror="alert(1)">', "</td><script>alert(2)</script>")


def table(*rows):
    """A table of clips of (name, subset, labels)."""
    return pd.DataFrame([dict(zip(("name", "subset", "labels"), row)) for row in rows])


CLIPS = table(
    ("1.wav", "curated", "Bark"), ("2.wav", "curated", "Bark,Rain"), ("3.wav", "curated", "Rain,Bark"),
    ("4.wav", "noisy", "Rain"), ("5.wav", "test", "Bark"), ("6.wav", "test", "Meow,Rain,Bark"),
)  # fmt: skip


def test_counts_as_counted_by_hand():
    tables = dataset_tables(CLIPS, ("Bark", "Meow", "Rain"))
    curated, noisy, test = tables["subsets"].to_dict("records")
    assert curated == {
        "subset": "curated", "clips": 3, "classes": 2, "single_label_clips": 1, "label_combinations": 2,
        "classes_that_occur_alone": 1,
    }  # fmt: skip
    assert tables["labels_per_clip"].to_dict("list") == {
        "labels": [1, 2, 3], "curated": [1, 2, 0], "noisy": [1, 0, 0], "test": [1, 0, 1]
    }  # fmt: skip
    bark = tables["classes"].set_index("class").loc["Bark"]
    assert bark[["curated", "noisy", "test"]].tolist() == [3, 0, 2]
    assert bark["curated_fraction"] == pytest.approx(3 / 5) and bark["test_fraction"] == pytest.approx(2 / 4)
    assert tables["pairs"].to_dict("records") == [
        {"one": "Bark", "other": "Rain", "clips": 2, "fraction_of_one": pytest.approx(2 / 3), "fraction_of_other": 1.0}
    ]
    assert set(tables) == {"subsets", "labels_per_clip", "classes", "pairs"}


@pytest.mark.skipif(not REAL.is_dir(), reason="the tables of FSDKaggle2019 are not available")
def test_the_real_tables_have_the_published_counts(tmp_path):
    clips, vocabulary = read_source(REAL)
    tables = dataset_tables(clips, vocabulary)
    curated = tables["subsets"].set_index("subset").loc["curated"]
    assert curated["label_combinations"] == 213
    assert curated["single_label_clips"] == 4269
    assert curated["classes_that_occur_alone"] == 74
    assert (tables["classes"]["noisy"] == 300).all() and len(tables["classes"]) == 80
    strongest = tables["pairs"].head(6)
    assert strongest["clips"].tolist() == [69, 58, 55, 55, 50, 47]
    assert strongest[["one", "other"]].iloc[0].tolist() == ["Acoustic_guitar", "Strum"]
    assert len(tables["pairs"]) == 144
    result = CliRunner().invoke(main, ["explore", str(REAL), "--out", str(tmp_path / "page.html")])
    assert result.exit_code == 0 and "213" in result.output and "4269" in result.output


@pytest.fixture
def faulty(tmp_path):
    """A folder of recordings: two duplicates, one silent, one at full scale, one that is not audio."""
    noise = 0.1 * np.random.default_rng(0).uniform(-1, 1, 8_000)
    sounds = {"a": noise, "b": noise, "c": np.zeros(4_000), "d": 20 * noise, "e": 0.001 * noise[:2_000]}
    (tmp_path / "set" / "Rain").mkdir(parents=True)
    for name, sound in sounds.items():
        sf.write(tmp_path / "set" / "Rain" / f"{name}.wav", sound, 8_000, subtype="PCM_16")
    (tmp_path / "set" / "Rain" / "f.wav").write_text("not audio")
    return tmp_path / "set"


def test_silence_clipping_duplicates_and_unreadable_files_are_found(faulty):
    clips, vocabulary = read_source(faulty, num_workers=1)
    tables = dataset_tables(clips, vocabulary)
    faults = {Path(row.name).stem: row.kind for row in tables["faults"].itertuples(index=False)}
    assert faults == {
        "c": "silent", "d": "at full scale: maybe clipped", "e": "below -60 dBFS", "f": "cannot be read"
    }  # fmt: skip
    (duplicate,) = tables["duplicates"].to_dict("records")
    assert duplicate == {"clips": 2, "names": "Rain/a.wav, Rain/b.wav", "labels": "Rain | Rain", "same_labels": "yes"}
    assert tables["durations"]["count"].tolist() == [5] and tables["durations"]["max"].tolist() == [1.0]
    assert tables["outliers"]["name"].iloc[0] == "Rain/e.wav"
    histogram = tables["histogram"]
    assert len(histogram) == 100 and histogram["to_seconds"].iloc[-1] == 1.0
    assert histogram[histogram["curated"] > 0]["curated"].to_dict() == {25: 1, 50: 1, 99: 3}  # 0.25, 0.5 and 1 s


def test_clips_to_listen_to_are_of_each_class_and_of_extreme_lengths(faulty):
    clips, _ = read_source(faulty, num_workers=1)
    chosen, shortest, longest = sample_cards(faulty, clips)
    assert [card["name"] for card in chosen["clips"]] == ["Rain/a.wav", "Rain/b.wav"]
    assert [card["seconds"] for card in shortest["clips"]] == ["0.25", "0.50", "1.00"]
    assert [card["name"] for card in longest["clips"]] == ["Rain/d.wav", "Rain/b.wav"]
    card = longest["clips"][0]
    sound, rate = sf.read(io.BytesIO(base64.b64decode(card["sound"].split(",")[1])))
    assert len(sound) / rate == pytest.approx(1, abs=0.1) and not card["cut"]
    assert card["waveform"].count("<polygon") == card["spectrum"].count("<polygon") == 1
    assert [text for text, _ in card["axes"]["hz"]] == ["200 Hz", "500 Hz", "1 kHz", "2 kHz"]  # of 4 kHz
    assert card["axes"]["seconds"][0] == ("0 s", 0)


def test_the_spectrum_of_a_tone_has_one_peak_of_its_amplitude(tmp_path):
    (tmp_path / "set" / "Tone").mkdir(parents=True)
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(8_000) / 8_000)
    sf.write(tmp_path / "set" / "Tone" / "a.wav", tone, 8_000, subtype="FLOAT")
    clips, _ = read_source(tmp_path / "set", num_workers=1)
    chart = sample_cards(tmp_path / "set", clips)[0]["clips"][0]["spectrum"]
    x, y = np.array([point.split(",") for point in chart.split('points="')[1].split('"')[0].split()], float).T
    assert y.max() - y.min() == pytest.approx(112, abs=0.5)  # the full height is the amplitude of the tone
    assert x[y < y.min() + 1].mean() == pytest.approx(48 + 246 / 4, abs=2)  # 1 of 4 kHz


def test_clips_of_records_can_be_listened_to(records):
    clips, _ = read_source(records)
    groups = sample_cards(records, clips)
    assert [len(group["clips"]) for group in groups] == [28, 3, 3]
    of_classes = [card["labels"].split(", ") for card in groups[0]["clips"]]
    assert {label for labels in of_classes for label in labels} == {*clips["labels"].str.split(",").explode()}
    assert all(card["sound"].startswith("data:audio/") for group in groups for card in group["clips"])
    seconds = clips.set_index("name")["seconds"]
    for group in groups:
        for card in group["clips"]:
            assert float(card["seconds"]) == pytest.approx(seconds[card["name"]], abs=0.01)


def test_a_folder_of_unreadable_files_has_only_faults(tmp_path):
    for label in ("Bark", "Rain"):
        (tmp_path / "set" / label).mkdir(parents=True)
        (tmp_path / "set" / label / "a.wav").write_text("not audio")
    clips, vocabulary = read_source(tmp_path / "set", num_workers=1)
    tables = dataset_tables(clips, vocabulary)
    assert tables["faults"]["kind"].tolist() == ["cannot be read"] * 2
    assert tables["durations"].empty and tables["duplicates"].empty
    write_dataset_page(tmp_path / "page.html", tmp_path / "set", clips, vocabulary, tables)
    page = (tmp_path / "page.html").read_text()
    assert page.count("audiotag cannot decode it") == 2 and "nan" not in page


def test_records_and_their_recordings_have_the_same_tables(records, demo):
    from_records, vocabulary = read_source(records)
    from_files, same = read_source(demo, num_workers=1)
    assert vocabulary == same
    one, other = dataset_tables(from_records, vocabulary), dataset_tables(from_files, vocabulary)
    for name in ("subsets", "classes", "pairs", "labels_per_clip"):
        pd.testing.assert_frame_equal(one[name], other[name])
    np.testing.assert_allclose(one["durations"]["median"], other["durations"]["median"], atol=1e-3)


def test_a_folder_without_clips_is_refused(tmp_path):
    with pytest.raises(DataError, match="the layout is not recognized"):
        read_source(tmp_path)


def test_a_recording_is_measured(faulty):
    measured = measure_file(str(faulty / "Rain" / "d.wav"))
    assert measured["seconds"] == 1 and measured["peak"] == pytest.approx(1, abs=1e-4) and measured["fault"] == ""
    assert set(measure_file(str(faulty / "Rain" / "f.wav"))) == {"fault"}


# The page


@pytest.mark.check("E3")
def test_the_page_is_complete_and_hostile_labels_are_harmless(records, tmp_path, open_page):
    clips = read_clips(records / "clips.csv").assign(fault="")
    clips.loc[:1, "fault"] = HOSTILE[1]
    vocabulary = tuple(sorted({label for labels in clips["labels"] for label in labels.split(",")}))
    hostile = dict(zip(vocabulary, (*HOSTILE, *vocabulary[2:])))
    clips["labels"] = [",".join(hostile[label] for label in labels.split(",")) for labels in clips["labels"]]
    clips.loc[2:3, "sha256"] = "same"
    classes = tuple(hostile.values())
    tables, samples = dataset_tables(clips, classes), sample_cards(records, clips)
    write_dataset_page(tmp_path / "page.html", "the <b>demo</b>", clips, classes, tables, samples=samples)
    page = open_page(tmp_path / "page.html")
    assert page.locator("script").count() == 0 and page.locator("td img").count() == 0
    assert page.get_by_text(HOSTILE[0], exact=True).count() >= 1
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    sizes = page.evaluate("[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)")
    assert len(sizes) == 2 * 14 + 3 + 2 * sum(len(group["clips"]) for group in samples) and min(sizes) >= 100
    shown = "[...document.querySelectorAll('.spectrogram img')].map(image => image.naturalWidth)"
    assert min(page.evaluate(shown)) > 20 and page.get_by_text("4 kHz").count() == len(sizes) // 2 - 15
    assert page.evaluate("[...document.querySelectorAll('audio')].every(a => a.error === null)")
    assert page.locator("h2").all_inner_texts()[-1] == "Silence, clipping, duplicates"
    assert page.get_by_text("cannot be read").count() >= 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone_in_both_color_schemes(records, tmp_path, open_page, scheme):
    clips, vocabulary = read_source(records)
    tables, samples = dataset_tables(clips, vocabulary), sample_cards(records, clips)
    write_dataset_page(tmp_path / "page.html", records, clips, vocabulary, tables, samples=samples)
    page = open_page(tmp_path / "page.html", width=390, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    style = "getComputedStyle(document.body)"
    ink, back = page.evaluate(f"[{style}.color, {style}.backgroundColor]")
    brightness = [sum(map(int, color[4:-1].split(","))) / 765 for color in (ink, back)]
    difference = brightness[1] - brightness[0]
    assert difference > 0.7 if scheme == "light" else difference < -0.7
