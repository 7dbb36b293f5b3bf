"""Opens the page in Chromium, and compares its scores with those of audiotag.

    python check.py demo.onnx bell.wav rain.wav

Each WAV file is given to the page as a file, and played to a fake microphone. The page's file must have the scores of
`audiotag.predict`, or, if it has another rate than the model, which the browser converts in its own way, the same best
class. At the microphone, where windows start anywhere, the class with the highest score in any window must be that one.
Needs playwright and a Chromium: `playwright install chromium`, or --chromium PATH.
"""

import argparse
import functools
import http.server
import shutil
import threading
from pathlib import Path

import soundfile
from playwright.sync_api import sync_playwright

import audiotag

FOLDER = Path(__file__).parent
SCORES = "[...document.querySelectorAll('#scores tr')].map((row) => [row.cells[0].innerText, row.cells[2].innerText])"


def main():
    """Prints a line per file, and ends with 1 if the page and audiotag differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    options = parser.parse_args()
    model = audiotag.load_model(options.model)
    table = audiotag.predict(model, options.files).set_index("fname")[list(model.vocabulary)]
    handler = functools.partial(Quiet, directory=str(FOLDER))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/index.html"
    wrong = 0
    with sync_playwright() as playwright:
        for path in options.files:
            row = table.loc[str(path)]
            file, recorded = tag(playwright, options.chromium, url, options.model, path)
            difference = max(abs(100 * row[name] - score) for name, score in file.items())
            same_rate = soundfile.info(path).samplerate == model.audio_config["sample_rate"]
            matches = difference < 0.2 or not same_rate
            matches &= {max(file, key=file.get), max(recorded, key=recorded.get)} == {row.idxmax()}
            wrong += not matches
            print(
                f"{path.name}: audiotag {row.idxmax()} {row.max():.1%}; page {max(file, key=file.get)}, scores differ "
                f"by {difference:.2f} %; microphone {max(recorded, key=recorded.get)}{'' if matches else '  DIFFERS'}"
            )
    server.shutdown()
    raise SystemExit(wrong > 0)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *_):
        pass


def tag(playwright, chromium, url, model, path):
    """The page's scores of a file and the highest at the microphone, {class: percent} both."""
    browser = playwright.chromium.launch(
        executable_path=chromium,
        args=[
            "--no-sandbox",
            "--autoplay-policy=no-user-gesture-required",
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={path.resolve()}",
        ],
    )
    page = browser.new_context(permissions=["microphone"]).new_page()
    page.on("pageerror", lambda error: print(f"  page: {error}"))
    page.goto(url)
    page.set_input_files("#model", model)
    page.wait_for_function("document.querySelector('#status').innerText.includes('classes at')", timeout=120_000)
    page.set_input_files("#file", path)
    page.wait_for_function(f"document.querySelector('#status').innerText.startsWith({path.name!r})", timeout=120_000)
    file = percentages(page.evaluate(SCORES))
    page.evaluate("document.querySelector('#scores').replaceChildren()")
    page.click("#microphone")
    recorded = {}
    for _ in range(round(4 * (soundfile.info(path).duration + 4))):  # it is repeated
        page.wait_for_timeout(250)
        for name, score in percentages(page.evaluate(SCORES)).items():
            recorded[name] = max(score, recorded.get(name, 0.0))
    browser.close()
    return file, recorded


def percentages(rows):
    """{class: percent} of the rows of the page's table."""
    return {name: float(text.split()[0]) for name, text in rows}


if __name__ == "__main__":
    main()
