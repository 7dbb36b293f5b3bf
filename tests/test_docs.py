"""The code of README and docs/ runs, in order, page by page.

Each page has a folder of its own, with small records and runs that are made once for all pages. These rules make it
fast:

- make-demo synthesizes 100 clips instead of 980, make-records decodes in its own process, and "*" is at most three
  files.
- A network of the kind conv_skip has one block. A stage trains one epoch, of at most two steps where the experiment
  gives their number, and at most two rounds.
- `fit` exports only the runs that all pages start from.
- A command that made what all pages start from, or that reads only that and has run on another page, is not run again.

A comment before a block, `<!-- not run: REASON -->`, says why it is not run. Its commands are parsed then: each is one
of audiotag with options that exist, a target of the Makefile, or a program in the repository. A block of JSON is an
experiment, keys of one or of a stage, or, after `<!-- ensemble -->` or `<!-- sweep -->`, a file of that kind; it is
validated.
"""

import ast
import functools
import glob
import json
import re
import shlex
import shutil
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner

from audiotag.cli import main
from audiotag.config.loading import load, parse
from audiotag.config.schema import Experiment, Stage
from audiotag.serving import saved_model

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
LANGUAGES = {"sh", "python", "json", "text"}
ONLY_READS = {"evaluate", "explore", "predict", "preview", "report"}
OTHER_PROGRAMS = {".", "AUDIOTAG_TIER=full", "arecord", "docker", "done", "for", "pip", "pytest", "python3"}


def blocks(page):
    """(mark, language, code) of each block of a page."""
    return [(found["mark"] or "", found["language"], found["code"]) for found in BLOCK.finditer(page.read_text())]


def pages_where(condition):
    """A parametrization over the pages of which a block satisfies a condition."""
    found = [page for page in PAGES if any(condition(*block) for block in blocks(page))]
    return pytest.mark.parametrize("page", found, ids=[str(page.relative_to(ROOT)) for page in found])


def is_run(mark, language, code):
    return language in ("sh", "python") and not mark.startswith("not run:")


def is_only_parsed(mark, language, code):
    return language in ("sh", "python") and mark.startswith("not run:")


def commands(code):
    """The words of each command of a shell block."""
    begun = ""
    for line in code.replace("\\\n", " ").splitlines(keepends=True):
        begun += line
        try:
            words = shlex.split(begun, comments=True)
        except ValueError:  # the quotation continues on the next line
            continue
        begun = ""
        while cut := next((number for number, word in enumerate(words) if word in ("&&", "|")), None):
            yield words[:cut]
            words = words[cut + 1 :]
        if words:
            yield words
    assert not begun, begun


# Running


def shortened(experiment):
    """The experiment, with little to train."""
    stages = []
    for stage in experiment.stages:
        changes = {"epochs": 1, "validation_freq": 1}
        if stage.steps_per_epoch:
            changes["steps_per_epoch"] = 2
        if stage.select and stage.select.rounds > 1:
            changes["select"] = stage.select.model_copy(update={"rounds": 2})
        stages.append(stage.model_copy(update=changes))
    model = experiment.model
    if model.name == "conv_skip":
        model = model.model_copy(update={"filters": model.filters[:1]})
    return experiment.model_copy(update={"stages": tuple(stages), "model": model})


@pytest.fixture(scope="module")
def quick():
    """Applies the rules that make the code fast."""
    from audiotag.data import synthetic
    from audiotag.training import loop

    fit, make_demo = loop.fit, functools.partial(synthetic.make_demo, curated=40, noisy=40, test=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "fit", lambda experiment, *args, **options: fit(shortened(experiment), *args, **options))
        patch.setattr(synthetic, "make_demo", make_demo)
        yield


def call(words):
    """Runs a command of audiotag in this process."""
    assert words[0] == "audiotag", f"{shlex.join(words)}: only commands of audiotag are run. Mark the block."
    arguments = [path for word in words[1:] for path in (sorted(glob.glob(word))[:3] if "*" in word else [word])]
    if arguments[0] == "make-records":
        arguments += ["--workers", "0"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, f"{shlex.join(words)}: {result.output}{result.exception or ''}"
    return result.output


@pytest.fixture(scope="module")
def made(quick, tmp_path_factory):
    """A folder with what pages start from, recordings, records and runs; and the commands that made it."""
    folder = tmp_path_factory.mktemp("made")
    done = [
        shlex.split(f"audiotag {words}")
        for words in (
            "make-demo demo",
            "make-records demo --sample-rate 16000",
            "make-records mysounds --sample-rate 16000",
            "new mysounds",
            "fit demo",
            "fit mysounds.json",
        )
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call(done[0])
        table = pd.read_csv("demo/train_curated.csv")
        for name, labels in zip(table["fname"], table["labels"]):
            label = labels.split(",")[0].replace("Drum", "Bark")
            (Path("mysounds") / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(Path("demo/train_curated") / name, Path("mysounds") / label)
            shutil.copy(Path("demo/train_curated") / name, "new.wav")
        for words in done[1:]:
            call(words)
    return folder, done


@pages_where(is_run)
def test_the_code_of_a_page_runs(page, made, tmp_path, monkeypatch):
    folder, done = made
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "page"))
    write = saved_model.write_saved_model
    by_export = lambda run, place, **options: place if place.name == "saved_model" else write(run, place, **options)
    monkeypatch.setattr(saved_model, "write_saved_model", by_export)
    names = {"__name__": "page"}
    for _, language, code in (block for block in blocks(page) if is_run(*block)):
        if language == "python":
            exec(compile(code, str(page), "exec"), names)
            continue
        for words in commands(code):
            if words not in done:
                call(words)
                if words[1] in ONLY_READS and (folder / words[2]).exists():
                    done.append(words)


# Parsing


def check_command(words):
    """Refuses a command of audiotag that does not exist, or an option that it does not have."""
    command = main.commands[words[1]] if not words[1].startswith("-") else main
    context = click.Context(command, info_name=command.name)
    command.make_parser(context).parse_args(words[2:] if command is not main else words[1:])


def check_program(words):
    """Refuses a program that is not in the repository, and a target that the Makefile does not have."""
    if words[0] == "audiotag":
        return check_command(words)
    if words[0] == "make":
        return [re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)[0] for target in words[1:]]
    if words[0] == "python" and words[1] != "-c":
        source = (ROOT / words[1]).read_text()
        return [source.index(f'"{word}"') for word in words[2:] if word.startswith("--")]
    assert words[0] in OTHER_PROGRAMS or re.match(r"\w+=", words[0]) or words[:2] == ["python", "-c"], words


@pages_where(is_only_parsed)
def test_code_that_is_not_run_names_what_exists(page):
    for mark, language, code in blocks(page):
        if not is_only_parsed(mark, language, code):
            continue
        assert len(mark) > len("not run: "), "say why it is not run"
        if language == "python":
            ast.parse(code)
        else:
            for words in commands(code):
                check_program(words)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_within_sentences_have_options_that_exist(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`(?:\w+=\w+ )?(audiotag [^`]+)`", text):
        words = shlex.split(code)
        if not words[1].isupper():
            check_command(words)


def test_every_block_says_its_language():
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)[::2]
        assert {fence for fence in fences if not fence.startswith("{")} <= LANGUAGES, page


@pytest.mark.parametrize(
    "words", ["audiotag fit x --sett a=1", "audiotag fitt x", "make demoo", "python benchmarks/x.py"]
)
def test_a_wrong_command_would_be_found(words):
    with pytest.raises((click.NoSuchOption, KeyError, TypeError, OSError)):
        check_program(words.split())


# JSON


def validate(content, mark):
    """Validates an experiment, or keys of one or of a stage."""
    if mark == "ensemble":
        from audiotag.ensembling.members import EnsembleConfig

        return parse(content, EnsembleConfig, "ensemble")
    if mark == "sweep":
        from audiotag.sweeps.schema import SweepConfig, list_trials

        config = parse(content, SweepConfig, "sweep")
        assert list_trials(config, Path("runs"), "sweep", quick=True)
        return config
    if "stages" in content:
        return parse(content, Experiment, "experiment")
    overrides = [] if "schedule" in content else ["stages.selected.schedule=null"]
    for key, value in content.items():
        assert key in Experiment.model_fields or key in Stage.model_fields, key
        place = key if key in Experiment.model_fields else f"stages.selected.{key}"
        overrides.append(f"{place}={json.dumps(value)}")
    return load("fsd_like_selected", overrides)


@pages_where(lambda mark, language, code: language == "json")
def test_json_is_valid(page):
    for mark, language, code in blocks(page):
        if language == "json":
            validate(json.loads(code if code.startswith("{") else f"{{{code}}}"), mark)


# Messages and links


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_code():
    texts = [
        node.value
        for path in (ROOT / "audiotag").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    messages = re.findall(r"^### `(.*)`$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(messages) > 15
    assert not [message for message in messages if not any(message in text for text in texts)]


def test_links_of_the_readme_and_files_that_pages_name_exist():
    for path in re.findall(r"\]\(([^):#]+)[^):]*\)", (ROOT / "README.md").read_text()):
        assert (ROOT / path).exists(), path
    for page in PAGES:
        for path in re.findall(r"(?<![\w/])((?:examples|benchmarks|tests)/[\w./]*\w)", page.read_text()):
            assert (ROOT / path).exists(), f"{page}: {path}"


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_the_reference_has_every_key_component_and_command(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(ROOT / "docs/_extensions"))
    import from_code

    from audiotag.config.component_help import component_lists

    keys, components, all_commands = from_code.experiment_keys(), from_code.components(), from_code.commands()
    for section in from_code.EXPERIMENT:
        for key in section.model_fields:
            assert f"| `{key}` |" in keys
    for sections in component_lists().values():
        for section in sections:
            assert f"### `{section.__name__}`" in components
    for name, command in main.commands.items():
        assert f"## `{name}`" in all_commands
        for option in (option for option in command.params if isinstance(option, click.Option)):
            assert max(option.opts, key=len) in all_commands
    assert "Overlap of sliding windows, as a fraction of a window" in keys  # a comment behind a key
    assert "At most this many clips per class" in keys  # a comment above a key
