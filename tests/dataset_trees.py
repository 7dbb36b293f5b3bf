"""Miniature trees of public datasets, for tests: {path: content}, and the table of clips that each means."""

EXPECTED = ["name", "subset", "labels", "fold", "group"]


def audio(*names):
    """Empty recordings."""
    return dict.fromkeys(names)


FSD50K = {
    "FSD50K.ground_truth/dev.csv":
        'fname,labels,mids,split\n64760,"Electric_guitar,Guitar","/m/02sgy,/m/0342h",train\n16399,Bark,/m/05tny_,val\n',
    "FSD50K.ground_truth/eval.csv": 'fname,labels,mids\n37199,"Guitar","/m/0342h"\n',
    "FSD50K.ground_truth/vocabulary.csv": "0,Bark,/m/05tny_\n1,Electric_guitar,/m/02sgy\n2,Guitar,/m/0342h\n",
    **audio("FSD50K.dev_audio/64760.wav", "FSD50K.dev_audio/16399.wav", "FSD50K.eval_audio/37199.wav"),
}  # fmt: skip
FSD50K_CLIPS = [
    ["16399.wav", "valid", "Bark", 0, ""],
    ["37199.wav", "test", "Guitar", 0, ""],
    ["64760.wav", "curated", "Electric_guitar,Guitar", 0, ""],
]
URBANSOUND8K = {
    "metadata/UrbanSound8K.csv":
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
        "100032-3-0-0.wav,100032,0,0.3,1,5,3,dog_bark\n100263-2-0-117.wav,100263,58.5,62.5,1,5,2,children_playing\n"
        "101415-3-0-2.wav,101415,1,5,1,1,3,dog_bark\n",
    "UrbanSound8K_README.txt": "UrbanSound8K: 8732 labeled sound excerpts",
    **audio("audio/fold5/100032-3-0-0.wav", "audio/fold5/100263-2-0-117.wav", "audio/fold1/101415-3-0-2.wav"),
}  # fmt: skip
URBANSOUND8K_CLIPS = [
    ["fold1/101415-3-0-2.wav", "curated", "dog_bark", 1, "101415"],
    ["fold5/100032-3-0-0.wav", "curated", "dog_bark", 5, "100032"],
    ["fold5/100263-2-0-117.wav", "curated", "children_playing", 5, "100263"],
]
SPEECH_COMMANDS = {
    "validation_list.txt": "no/0a9f9af7_nohash_0.wav\n",
    "testing_list.txt": "yes/bb05582b_nohash_3.wav\n",
    "README.md": "Speech Commands Data Set v0.02",
    "LICENSE": "CC BY 4.0",
    "_background_noise_/README.md": "noise",
    **audio("no/0a9f9af7_nohash_0.wav", "no/004ae714_nohash_0.wav", "yes/bb05582b_nohash_3.wav"),
    **audio("yes/004ae714_nohash_0.wav", "_background_noise_/doing_the_dishes.wav"),
}
SPEECH_COMMANDS_CLIPS = [
    ["_background_noise_/doing_the_dishes.wav", "curated", "", 0, ""],
    ["no/004ae714_nohash_0.wav", "curated", "no", 0, "004ae714"],
    ["no/0a9f9af7_nohash_0.wav", "valid", "no", 0, "0a9f9af7"],
    ["yes/004ae714_nohash_0.wav", "curated", "yes", 0, "004ae714"],
    ["yes/bb05582b_nohash_3.wav", "test", "yes", 0, "bb05582b"],
]
AUDIOFOLDER = {
    "README.md": "---\nlicense: cc\n---\n",
    "train/metadata.csv": "file_name,label\na.wav,Bark\nb.wav,Rain\n",
    "validation/metadata.csv": "file_name,label\nc.wav,Rain\n",
    "test/metadata.csv": "file_name,label\nd.wav,Bark\n",
    **audio("train/a.wav", "train/b.wav", "validation/c.wav", "test/d.wav"),
}
AUDIOFOLDER_CLIPS = [
    ["test/d.wav", "test", "Bark", 0, ""],
    ["train/a.wav", "curated", "Bark", 0, ""],
    ["train/b.wav", "curated", "Rain", 0, ""],
    ["validation/c.wav", "valid", "Rain", 0, ""],
]
JSONL = {
    "metadata.jsonl":
        '{"file_name": "train/a.wav", "label": ["Bark", "Rain"]}\n{"file_name": "train/b.wav", "label": ["Rain"]}\n'
        '{"file_name": "validation/c.wav", "label": ["Rain"]}\n{"file_name": "test/d.wav", "label": ["Bark"]}\n',
    **audio("train/a.wav", "train/b.wav", "validation/c.wav", "test/d.wav"),
}  # fmt: skip
JSONL_CLIPS = [[*clip[:2], "Bark,Rain" if clip[0] == "train/a.wav" else clip[2], 0, ""] for clip in AUDIOFOLDER_CLIPS]
ESC50_TABLE = (
    "filename,fold,target,category,esc10,src_file,take\n"
    "1-100032-A-0.wav,1,0,dog,True,100032,A\n2-100038-A-14.wav,2,14,chirping_birds,False,100038,A\n"
)
ESC50_NAMES = ["1-100032-A-0.wav", "2-100038-A-14.wav"]
ESC50 = {
    "meta/esc50.csv": ESC50_TABLE,
    "meta/esc50-human.xlsx": b"PK\3\4",
    "README.md": "# ESC-50",
    "requirements.txt": "librosa",
    **audio(*(f"audio/{name}" for name in ESC50_NAMES)),
}
ESC50_CLIPS = [
    ["audio/1-100032-A-0.wav", "curated", "dog", 1, "1-100032"],
    ["audio/2-100038-A-14.wav", "curated", "chirping_birds", 2, "2-100038"],
]
ESC50_KAGGLE = {"esc50.csv": ESC50_TABLE, **audio(*(f"audio/audio/{name}" for name in ESC50_NAMES))}
ESC50_KAGGLE |= audio(*(f"audio/audio/16000/{name}" for name in ESC50_NAMES))
ESC50_KAGGLE_CLIPS = [[clip[0].removeprefix("audio/"), *clip[1:]] for clip in ESC50_CLIPS]
TAU_NAMES = [f"airport-barcelona-0-{n}-a.wav" for n in range(2)] + [f"bus-helsinki-1-{n}-a.wav" for n in range(3)]
TAU = {
    "meta.csv":
        "filename\tscene_label\tidentifier\tsource_label\n"
        + "".join(f"audio/{n}\t{n.split('-')[0]}\t{n.split('-')[1]}-{n.split('-')[2]}\ta\n" for n in TAU_NAMES),
    "evaluation_setup/fold1_train.csv":
        "filename\tscene_label\naudio/airport-barcelona-0-0-a.wav\tairport\naudio/bus-helsinki-1-0-a.wav\tbus\n",
    "evaluation_setup/fold1_evaluate.csv":
        "filename\tscene_label\naudio/airport-barcelona-0-1-a.wav\tairport\naudio/bus-helsinki-1-1-a.wav\tbus\n",
    "evaluation_setup/fold1_test.csv":
        "filename\naudio/airport-barcelona-0-1-a.wav\naudio/bus-helsinki-1-1-a.wav\n",
    "README.html": "<html>",
    **audio(*(f"audio/{name}" for name in TAU_NAMES)),
}  # fmt: skip
TAU_CLIPS = [
    ["audio/airport-barcelona-0-0-a.wav", "curated", "airport", 0, "barcelona-0"],
    ["audio/airport-barcelona-0-1-a.wav", "test", "airport", 0, "barcelona-0"],
    ["audio/bus-helsinki-1-0-a.wav", "curated", "bus", 0, "helsinki-1"],
    ["audio/bus-helsinki-1-1-a.wav", "test", "bus", 0, "helsinki-1"],
]
BIRDNET = {
    **audio("Parus major_Great Tit/a.wav", "Parus major_Great Tit/b.wav"),
    **audio("Parus major_Great Tit, Turdus merula_Common Blackbird/c.wav"),
    **audio("Turdus merula_Common Blackbird/d.wav", "Noise/e.wav", "-Parus major_Great Tit/f.wav"),
}
BIRDNET_CLIPS = [
    ["-Parus major_Great Tit/f.wav", "curated", "", 0, ""],
    ["Noise/e.wav", "curated", "", 0, ""],
    ["Parus major_Great Tit, Turdus merula_Common Blackbird/c.wav", "curated"]
    + ["Parus major_Great Tit,Turdus merula_Common Blackbird", 0, ""],
    ["Parus major_Great Tit/a.wav", "curated", "Parus major_Great Tit", 0, ""],
    ["Parus major_Great Tit/b.wav", "curated", "Parus major_Great Tit", 0, ""],
    ["Turdus merula_Common Blackbird/d.wav", "curated", "Turdus merula_Common Blackbird", 0, ""],
]
AUDIOSET = {
    "balanced_train_segments.csv":
        "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=3, num_segs=3\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n--ZhevVpy1s, 50.000, 60.000, "/m/012xff"\n'
        '--aE2O5G5WE, 0.000, 10.000, "/m/09x0r"\n',
    "eval_segments.csv":
        "# YTID, start_seconds, end_seconds, positive_labels\n" '-0RWZT-miFs, 420.000, 430.000, "/m/012xff"\n',
    "class_labels_indices.csv":
        'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/012xff,"Toothbrush"\n2,/t/dd00088,"Gush, splash"\n',
    **audio("wav/--PJHxphWEs.wav", "wav/Y--ZhevVpy1s_50.000_60.000.wav", "wav/-0RWZT-miFs_420000.wav"),
}  # fmt: skip
AUDIOSET_CLIPS = [
    ["wav/--PJHxphWEs.wav", "curated", "Speech,Gush and splash", 0, "--PJHxphWEs"],
    ["wav/-0RWZT-miFs_420000.wav", "test", "Toothbrush", 0, "-0RWZT-miFs"],
    ["wav/Y--ZhevVpy1s_50.000_60.000.wav", "curated", "Toothbrush", 0, "--ZhevVpy1s"],
]
RAVEN_HEADER = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tAnnotation\n"
RAVEN = {
    "night.Table.1.selections.txt":
        RAVEN_HEADER + "1\tWaveform 1\t1\t0.500\t1.500\t0\t8000\towl\n1\tSpectrogram 1\t1\t0.500\t1.500\t0\t8000\towl\n"
        "2\tSpectrogram 1\t1\t1.200\t1.400\t0\t8000\tfrog\n3\tSpectrogram 1\t1\t1.500\t1.900\t0\t8000\tfrog\n",
    "day.Table.1.selections.txt": RAVEN_HEADER + "1\tSpectrogram 1\t1\t0.0\t1.0\t0\t8000\tlark\n",
    **audio("night.wav", "day.wav"),
}  # fmt: skip
RAVEN_CLIPS = [
    ["day@0.000-1.000.wav", "curated", "lark", 0, "day.wav"],
    ["night@0.500-1.500.wav", "curated", "frog,owl", 0, "night.wav"],
    ["night@1.200-1.400.wav", "curated", "frog,owl", 0, "night.wav"],
    ["night@1.500-1.900.wav", "curated", "frog", 0, "night.wav"],
]
AUDACITY = {
    "night.txt":
        "0.500000\t1.500000\towl\n\\\t100.0\t8000.0\n1.200000\t1.400000\tfrog\n1.500000\t1.900000\tfrog\n",
    "day.txt": "0,000000\t1,000000\tlark\n",
    **audio("night.wav", "day.wav"),
}  # fmt: skip
# {name: (layout, files, clips)}
TREES = {
    "FSD50K": ("fsd50k", FSD50K, FSD50K_CLIPS),
    "UrbanSound8K": ("urbansound8k", URBANSOUND8K, URBANSOUND8K_CLIPS),
    "Speech Commands": ("speech_commands", SPEECH_COMMANDS, SPEECH_COMMANDS_CLIPS),
    "AudioFolder": ("audiofolder", AUDIOFOLDER, AUDIOFOLDER_CLIPS),
    "AudioFolder, JSON": ("audiofolder", JSONL, JSONL_CLIPS),
    "ESC-50": ("esc", ESC50, ESC50_CLIPS),
    "ESC-50 on Kaggle": ("esc", ESC50_KAGGLE, ESC50_KAGGLE_CLIPS),
    "TAU": ("dcase", TAU, TAU_CLIPS),
    "BirdNET": ("birdnet", BIRDNET, BIRDNET_CLIPS),
    "AudioSet": ("audioset", AUDIOSET, AUDIOSET_CLIPS),
    "Raven": ("selections", RAVEN, RAVEN_CLIPS),
    "Audacity": ("selections", AUDACITY, RAVEN_CLIPS),
}
