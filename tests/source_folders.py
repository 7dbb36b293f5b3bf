"""Folders of recordings as each dataset source has them, for tests."""

SUBSET_FOLDERS = {"curated": "train_curated", "noisy": "train_noisy", "test": "test"}
COLUMNS = ["name", "subset", "labels", "usage", "fold"]


def make(folder, files):
    """Writes {path: text, or bytes, or None for an empty file} below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else (content or "").encode())
    return folder


KAGGLE = {
    "train_curated.csv": 'fname,labels\na.wav,Bark\nb.wav,"Meow,Bark"\n',
    "train_noisy.csv": "fname,labels\nc.wav,Meow\n",
    "test_labels.csv": 'fname,labels,usage\nt.wav,Bark,Public\nu.wav,"Bark,Meow",Private\n',
    "sample_submission.csv": "fname,Bark,Meow\nt.wav,0,0\nu.wav,0,0\n",
    **dict.fromkeys(["train_curated/a.wav", "train_curated/b.wav", "train_noisy/c.wav", "test/t.wav", "test/u.wav"]),
}
META = "FSDKaggle2019.meta/"
ZENODO = {
    META + "train_curated_post_competition.csv":
        'fname,labels,freesound_id,license\nb.wav,"Meow,Bark",22,CC0\na.wav,Bark,21,CC0\n',
    META + "train_noisy_post_competition.csv":
        "fname,labels,flickr_video_URL,license\nc.wav,Meow,http://x/1,CC BY 2.0\n",
    META + "test_post_competition.csv":
        'fname,labels,usage,freesound_id,license\nu.wav,"Bark,Meow",Private,24,CC0\nt.wav,Bark,Public,23,CC0\n',
    META + "vocabulary.csv": "0,Bark\n1,Meow\n",
    **{f"FSDKaggle2019.audio_{name}": None for name in KAGGLE if name.endswith(".wav")},
}  # fmt: skip
KAGGLE2018 = {
    "train.csv": "fname,label,manually_verified\na.wav,Hi-hat,1\nb.wav,Meow,0\nc.wav,Meow,1\n",
    "test_post_competition.csv":
        "fname,label,usage,freesound_id,license\n"
        "t.wav,Hi-hat,Public,32,CC0\np.wav,None,Ignored,31,CC0\nu.wav,Meow,Private,33,CC0\n",
    "sample_submission.csv":
        "fname,label\np.wav,Laughter Hi-Hat Flute\nt.wav,Laughter Hi-Hat Flute\nu.wav,Laughter Hi-Hat Flute\n",
    **dict.fromkeys([*(f"audio_train/{name}.wav" for name in "abc"), *(f"audio_test/{name}.wav" for name in "ptu")]),
}  # fmt: skip
META2018 = "FSDKaggle2018.meta/"
ZENODO2018 = {
    META2018 + "train_post_competition.csv":
        "fname,label,manually_verified,freesound_id,license\n"
        "c.wav,Meow,1,23,CC0\na.wav,Hi-hat,1,21,CC0\nb.wav,Meow,0,22,CC0\n",
    META2018 + "test_post_competition_scoring_clips.csv":
        "fname,label,usage,freesound_id,license\nu.wav,Meow,Private,33,CC0\nt.wav,Hi-hat,Public,32,CC0\n",
    **{f"FSDKaggle2018.{name}": None for name in KAGGLE2018 if name.endswith(".wav") and "/p" not in name},
}  # fmt: skip
PLAIN = {"labels.csv": "fname,labels\na.wav,Bark\nb.wav,Meow\n", "audio/a.wav": None, "audio/b.wav": None}
ESC10 = dict.fromkeys(["001 - Dog bark/1-100032-A.ogg", "001 - Dog bark/2-7-B.ogg", "002 - Rain/1-100032-B.ogg"])
FOLDERS = dict.fromkeys(["dog/1.wav", "dog/2.FLAC", "rain/1.mp3"])
