// The page of `audiotag review`: one clip at a time, every action by a key. Texts of clips are only ever set as text.

const $ = (id) => document.getElementById(id);
const MAX_MEDIA = 24; // clips whose image and sound stay in memory
const MAX_FOUND = 50; // classes that a search lists
const LONGEST_DECISION = 60; // seconds; a longer one was a break
const MIN_DECISIONS = 3; // before the time left is estimated
const EXAMPLE_KEYS = ["Q", "W", "E", "R"];

let session; // what the server said about all clips
let queue = []; // the numbers of the clips that the filters choose, in the order of review
let matching = []; // those and the ones that are decided already
let place = 0; // in the queue
let clip; // the shown clip: its number, the server's details, `labels` as they are edited
let undoable = []; // decisions of this page: {clip, version, row}, what to write to take each back
let durations = []; // seconds per decision
let shownAt = 0;
let busy = false; // a decision is on its way to the disk
let frame; // of the moving cursor
let opening = 0; // counts clips that were opened, so that a slow answer does not replace a later clip

// The server

class Refused extends Error {
  constructor(message, content) {
    super(message);
    this.content = content;
  }
}

async function call(path, content) {
  const options = content === undefined ? {} : { method: "POST", body: JSON.stringify(content) };
  let response, answer;
  try {
    response = await fetch(path, { ...options, headers: { "Content-Type": "application/json" } });
    answer = await response.json();
  } catch {
    throw new Refused("No answer. Start audiotag review again; all saved decisions are kept.", {});
  }
  if (!response.ok) throw new Refused(answer.error, answer);
  return answer;
}

// Elements

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const bdi = (text) => element("bdi", { textContent: text });
const key = (text) => element("kbd", { textContent: text });

function say(text, calm = false) {
  $("notice").textContent = text;
  $("notice").classList.toggle("calm", calm);
}

// Sound: a loop of samples, without gaps

const player = {
  context: null,
  source: null,
  samples: null, // an AudioBuffer
  started: 0, // of the context's clock, when the loop's start would have been played
  offset: 0, // seconds into the loop while it is paused
  wanted: false, // a key was pressed: browsers play nothing before

  load(samples) {
    this.stop();
    this.samples = samples;
    this.offset = 0;
    if (this.wanted) this.play();
    else showPlaying();
  },
  play(offset = this.offset) {
    if (!this.samples) return;
    this.stop();
    this.context ??= new AudioContext();
    this.context.resume();
    this.source = new AudioBufferSourceNode(this.context, { buffer: this.samples, loop: true });
    this.source.connect(this.context.destination);
    this.source.start(0, offset % this.samples.duration);
    this.started = this.context.currentTime - offset;
    showPlaying();
  },
  stop() {
    if (!this.source) return;
    this.offset = this.position();
    this.source.stop();
    this.source = null;
    showPlaying();
  },
  position() {
    if (!this.source) return this.offset;
    return (this.context.currentTime - this.started) % this.samples.duration;
  },
};

function showPlaying() {
  moveCursor();
  $("play").setAttribute("aria-pressed", Boolean(player.source));
  $("playing").textContent = player.source ? "Pause" : "Play";
}

function moveCursor() {
  const shown = clip && player.samples && player.samples === clip.samples;
  $("cursor").classList.toggle("on", Boolean(shown));
  if (shown) $("cursor").style.left = `${(100 * player.position()) / player.samples.duration}%`;
  cancelAnimationFrame(frame);
  if (player.source) frame = requestAnimationFrame(moveCursor);
}

// Images and sounds of clips, kept for a while

const media = new Map();

function mediaOf(path) {
  if (!media.has(path)) {
    const image = element("img", { alt: "", src: `${path}/image` });
    const samples = fetch(`${path}/sound`)
      .then((response) => (response.ok ? response.arrayBuffer() : null))
      .then((data) => (data && data.byteLength ? audioBuffer(new Int16Array(data), session.rate) : null))
      .catch(() => null)
      .then((loaded) => {
        if (!loaded) media.delete(path); // asked again when the clip is shown again
        return loaded;
      });
    media.set(path, { image, samples });
    if (media.size > MAX_MEDIA) media.delete(media.keys().next().value);
  }
  return media.get(path);
}

function audioBuffer(pcm, sampleRate) {
  const buffer = new AudioBuffer({ length: pcm.length, numberOfChannels: 1, sampleRate });
  buffer.copyToChannel(Float32Array.from(pcm, (sample) => sample / 32768), 0);
  return buffer;
}

// The queue

const pathOf = (index) => `/clips/${index}`;
const nameOf = (index) => session.clips.names[index];
const rowOf = (index) => session.rows.get(nameOf(index));
const isDecided = (index) => Boolean(rowOf(index)?.why);
const givenLabels = (index) => session.clips.labels[index];
const currentLabels = (index) => {
  const row = rowOf(index);
  return row ? row.labels.split(",").map((label) => label.trim()).filter(Boolean) : givenLabels(index);
};

function fillQueue() {
  const form = $("filters").elements;
  const { names, subsets, folds, margins, top } = session.clips;
  const label = form.class.value;
  const least = form.least.value === "" ? -Infinity : Number(form.least.value);
  const most = form.most.value === "" ? Infinity : Number(form.most.value);
  matching = [...names.keys()].filter((index) => {
    const margin = margins[index] ?? -Infinity;
    return (
      (form.subset.value === "" || subsets[index] === form.subset.value) &&
      (form.fold.value === "" || String(folds[index]) === form.fold.value) &&
      (label === "" || currentLabels(index).includes(label) || session.classes[top[index]] === label) &&
      margin >= least &&
      margin <= most
    );
  });
  const chosen = {
    open: (index) => !isDecided(index),
    all: () => true,
    unsure: (index) => rowOf(index)?.why === "unsure",
    decided: (index) => isDecided(index),
  }[form.show.value];
  queue = matching.filter(chosen);
  place = 0;
}

function fillFilters() {
  const form = $("filters").elements;
  const { subsets, folds, margins } = session.clips;
  const add = (select, values) => select.append(...values.map((value) => element("option", { value, textContent: value })));
  add(form.class, session.classes);
  add(form.subset, [...new Set(subsets)].filter(Boolean).sort());
  add(form.fold, [...new Set(folds)].filter((fold) => fold >= 0).sort((a, b) => a - b));
  if (session.editable && margins.some((margin) => margin > 0)) form.least.value = "0";
}

function showProgress() {
  const decided = matching.filter(isDecided).length;
  const left = matching.length - decided;
  $("progress").value = matching.length ? decided / matching.length : 0;
  const sorted = [...durations].sort((a, b) => a - b);
  const seconds = left * (sorted[Math.floor(sorted.length / 2)] ?? 0);
  const time = seconds < 90 ? `${Math.max(5, 5 * Math.round(seconds / 5))} s` : `${Math.round(seconds / 60)} min`;
  const estimate = durations.length >= MIN_DECISIONS && left ? ` · about ${time} left` : "";
  const total = matching.length.toLocaleString("en");
  $("count").textContent = session.editable ? `${decided.toLocaleString("en")} of ${total}${estimate}` : `${total} clips, read-only`;
}

// One clip

async function open(index) {
  const number = ++opening;
  player.stop();
  player.samples = null;
  let details;
  try {
    details = await call(`/clips/${index}`);
  } catch (error) {
    if (number === opening) say(error.message);
    return;
  }
  if (number !== opening) return;
  setRow(nameOf(index), details.row);
  clip = { index, ...details, labels: currentLabels(index), samples: null };
  say("");
  show();
  if (!details.problem) showMedia(number);
  for (const next of queue.slice(place + 1, place + 3)) mediaOf(pathOf(next));
}

async function showMedia(number) {
  const { image, samples } = mediaOf(pathOf(clip.index));
  image.alt = "Log-mel spectrogram, low frequencies at the bottom";
  $("image").replaceChildren(image);
  const loaded = await samples;
  if (number !== opening) return;
  if (!loaded) return say("The sound was not loaded. Go to the next clip and back to try again.");
  clip.samples = loaded;
  player.load(loaded);
}

function setRow(name, row) {
  if (row) session.rows.set(name, row);
  else session.rows.delete(name);
}

function show() {
  const { index } = clip;
  $("review").hidden = false;
  $("done").hidden = true;
  document.body.dataset.clip = nameOf(index);
  $("name").textContent = nameOf(index);
  const fold = session.clips.folds[index];
  const facts = [session.clips.subsets[index], fold >= 0 ? `fold ${fold}` : "", clip.cut || (clip.seconds ? `${clip.seconds.toFixed(1)} s` : "")];
  const margin = session.clips.margins[index];
  if (margin !== null) facts.push(`margin ${margin.toFixed(1)}`);
  $("meta").textContent = facts.filter(Boolean).join(" · ");
  $("place").textContent = `${(place + 1).toLocaleString("en")} / ${queue.length.toLocaleString("en")}`;
  $("problem").textContent = clip.problem;
  if (clip.problem) $("image").replaceChildren();
  $("sounding").textContent = "";
  showAxes();
  showLabels();
  showExamples();
  showProgress();
  shownAt = performance.now();
}

function showAxes() {
  const axes = clip.axes ?? { hz: [], seconds: [] };
  const labels = (values, side) =>
    values.map(([text, percent]) => {
      const label = element("span", { textContent: text });
      label.style[side] = `${percent}%`;
      return label;
    });
  $("hz").replaceChildren(...labels(axes.hz, "bottom"));
  $("seconds").replaceChildren(...labels(axes.seconds, "left"));
}

function isEdited() {
  return [...clip.labels].sort().join() !== [...currentLabels(clip.index)].sort().join();
}

function showLabels() {
  const given = givenLabels(clip.index);
  const row = rowOf(clip.index);
  const chips = clip.labels.map((label) => element("li", { className: session.unlabeled || given.includes(label) ? "" : "new" }, bdi(label)));
  chips.push(...given.filter((label) => !clip.labels.includes(label)).map((label) => element("li", { className: "was" }, bdi(label))));
  $("labels").replaceChildren(...(chips.length ? chips : [element("li", { className: "none", textContent: session.unlabeled && !row ? "none yet" : "no class" })]));
  const by = row?.who ? ` by ${row.who}` : "";
  $("decision").textContent = row?.why ? `${row.why}${by}` : row && row.weight === 0 ? "left out" : "";
  const rows = clip.predictions.map(([label, probability], number) => {
    const bar = element("i");
    bar.style.width = `${Math.round(100 * probability)}%`;
    const parts = [key(number + 1), bdi(label), element("span", { className: "bar" }, bar)];
    parts.push(element("span", { className: "probability", textContent: probability.toFixed(2) }));
    const button = element("button", { type: "button", className: clip.labels.includes(label) ? "given" : "", disabled: !session.editable }, ...parts);
    button.addEventListener("click", () => onlyLabel(label));
    return element("li", {}, button);
  });
  $("predictions").replaceChildren(...rows);
  $("accept").firstElementChild.textContent = session.unlabeled || isEdited() ? "Save" : "Right";
  $("undo").disabled = !undoable.length;
}

function showExamples() {
  const given = givenLabels(clip.index);
  const rows = clip.examples.filter((row) => row.clips.length).slice(0, EXAMPLE_KEYS.length);
  $("examples").replaceChildren(
    ...rows.map((row, number) => {
      const list = row.clips.map(({ path, name }) => {
        const button = element("button", { type: "button", ariaLabel: `Play an example of ${row.class}: ${name}` });
        const image = mediaOf(path).image.cloneNode();
        image.alt = "";
        button.append(image);
        button.dataset.path = path;
        button.addEventListener("click", () => playExample(path, row.class));
        return element("li", {}, button);
      });
      return element("section", {}, element("h2", {}, key(EXAMPLE_KEYS[number]), bdi(row.class), given.includes(row.class) ? "given" : "predicted"), element("ul", {}, ...list));
    }),
  );
}

async function playExample(path, label) {
  const number = opening;
  const samples = await mediaOf(path).samples;
  if (number !== opening || !samples) return;
  player.wanted = true;
  player.load(samples);
  for (const button of $("examples").querySelectorAll("button")) button.classList.toggle("on", button.dataset.path === path);
  $("sounding").replaceChildren("an example of ", bdi(label), " · ", key("Space"), " returns");
}

function nextExample(number) {
  const section = $("examples").children[number];
  if (!section) return;
  const buttons = [...section.querySelectorAll("button")];
  const current = buttons.findIndex((button) => button.classList.contains("on"));
  buttons[(current + 1) % buttons.length].click();
}

function playOrPause() {
  if (!clip?.samples) return;
  player.wanted = true;
  if (player.samples !== clip.samples) {
    player.load(clip.samples);
    $("sounding").textContent = "";
    for (const button of $("examples").querySelectorAll("button")) button.classList.remove("on");
  } else if (player.source) {
    player.wanted = false;
    player.stop();
  } else {
    player.play();
  }
}

// Moving

function go(step) {
  if (!$("done").hidden) return step < 0 ? goTo(place) : undefined;
  const next = place + step;
  if (next >= 0 && next < queue.length) goTo(next);
  else say(step < 0 ? "This is the first clip." : "This is the last clip.", true);
}

function goTo(next) {
  place = next;
  return open(queue[place]);
}

async function goToNextOpen() {
  const again = ["unsure", "decided"].includes($("filters").elements.show.value); // clips that are decided anyway
  const after = [...queue.keys()].map((number) => (place + 1 + number) % queue.length);
  const next = again ? place + 1 : after.find((number) => !isDecided(queue[number]));
  if (next === undefined || next >= queue.length) return showDone();
  await goTo(next);
  if (!again && clip.index === queue[next] && isDecided(clip.index)) await goToNextOpen(); // by another browser meanwhile
}

function showDone() {
  player.stop();
  clip = undefined;
  opening++;
  document.body.dataset.clip = "";
  $("review").hidden = true;
  $("done").hidden = false;
  showProgress();
  const decided = matching.filter(isDecided).length;
  const none = !queue.length && (!matching.length || $("filters").elements.show.value !== "open");
  const all = decided === matching.length ? `All ${decided.toLocaleString("en")} clips are decided.` : "This was the last of these clips.";
  $("done-title").textContent = none ? "No clip matches the filters." : all;
  const open = [...session.clips.names.keys()].filter((index) => !isDecided(index)).length;
  const others = none || !open ? "" : `The filters (F) leave out ${open.toLocaleString("en")} more. `;
  $("done-text").textContent = `${others}${session.next_command && !none ? (session.unlabeled ? "Train with the labels:" : "Train with the corrections:") : ""}`;
  $("done-command").textContent = none ? "" : session.next_command;
  $("done-back").hidden = none || !queue.length;
  $("done-undo").hidden = !undoable.length;
}

// Decisions

async function decide(why, labels) {
  if (!clip || busy) return;
  if (!session.editable) return say("Test clips are read-only. To change their labels, start audiotag review with --edit-test.", true);
  if (why !== "removed" && why !== "unsure" && !labels.length && givenLabels(clip.index).length)
    return say("A clip needs a label. Choose one, or remove the clip.");
  busy = true;
  const name = nameOf(clip.index);
  const seconds = (performance.now() - shownAt) / 1000;
  try {
    const answer = await call("/decisions", { clip: name, version: rowOf(clip.index)?.version ?? "", labels, why });
    setRow(name, answer.row);
    remember({ clip: name, version: answer.row.version, row: answer.previous });
    durations.push(Math.min(seconds, LONGEST_DECISION));
    await goToNextOpen();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    refused(error, name);
  } finally {
    busy = false;
  }
}

function refused(error, name) {
  if (!("row" in error.content)) return say(`Not saved. ${error.message}`);
  setRow(name, error.content.row);
  clip.labels = currentLabels(clip.index);
  showLabels();
  const row = error.content.row;
  const weight = row && "weight" in row ? `, weight ${row.weight}` : "";
  const now = row ? `${row.labels || "no class"}${weight}${row.who ? `, by ${row.who}` : ""}` : session.unlabeled ? "without labels" : "as in the records";
  say(`Not saved: this clip was changed meanwhile. It is now ${now}. Decide again if you disagree.`);
}

function accept() {
  if (!session.unlabeled) return decide(isEdited() || !sameAsGiven() ? "changed" : "accepted", clip.labels);
  if (clip.labels.length) return decide("labeled", clip.labels);
  say("Choose a class first; 0 says that the clip has none of them.");
}
const noClass = () => session.unlabeled && clip && decide("labeled", []);
const sameAsGiven = () => [...clip.labels].sort().join() === [...givenLabels(clip.index)].sort().join();
const onlyLabel = (label) => {
  clip.labels = [label];
  accept();
};

function toggle(label) {
  if (session.single_label) clip.labels = [label];
  else if (clip.labels.includes(label)) clip.labels = clip.labels.filter((other) => other !== label);
  else clip.labels = [...clip.labels, label];
  showLabels();
  say(isEdited() ? "Enter saves these labels." : "", true);
}

async function undo() {
  if (busy || !undoable.length) return;
  busy = true;
  const last = undoable.at(-1);
  try {
    const answer = await call("/undo", last);
    forget();
    setRow(last.clip, answer.row);
    const index = session.clips.names.indexOf(last.clip);
    if (!queue.includes(index)) queue.splice(place, 0, index);
    await goTo(queue.indexOf(index));
    say("Undone.", true);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if ("row" in error.content) {
      forget();
      setRow(last.clip, error.content.row);
      say(`Not undone: ${last.clip} was changed meanwhile.`);
    } else say(`Not undone. ${error.message}`);
  } finally {
    busy = false;
    $("undo").disabled = !undoable.length;
  }
}

const UNDO_KEY = () => `undo ${session.file}`;

function remember(decision) {
  undoable.push(decision);
  sessionStorage.setItem(UNDO_KEY(), JSON.stringify(undoable));
}

function forget() {
  undoable.pop();
  sessionStorage.setItem(UNDO_KEY(), JSON.stringify(undoable));
}

// Searching a class

let choose; // what is done with the class that is found
let found = [];
let selected = 0;

function search(title, chosen) {
  if (!clip || busy) return;
  if (!session.editable) return decide("unsure", []); // which says that it is read-only
  choose = chosen;
  $("search-title").textContent = title;
  $("query").value = "";
  showFound();
  $("search").showModal();
}

const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

function showFound() {
  const query = plain($("query").value.trim());
  const likely = clip.predictions.map(([label]) => label);
  const classes = [...likely, ...session.classes.filter((label) => !likely.includes(label))];
  const rank = (label) => {
    const text = plain(label);
    if (text.startsWith(query)) return 0;
    return text.split(/[^\p{L}\p{N}]+/u).some((word) => word.startsWith(query)) ? 1 : text.includes(query) ? 2 : 3;
  };
  found = classes.filter((label) => rank(label) < 3).sort((a, b) => rank(a) - rank(b)).slice(0, MAX_FOUND);
  selected = 0;
  const options = found.map((label, number) => {
    const option = element("li", { id: `found-${number}`, role: "option" }, bdi(label));
    option.addEventListener("click", () => take(label));
    return option;
  });
  $("found").replaceChildren(...(options.length ? options : [element("li", { textContent: "No such class" })]));
  showSelected();
}

function showSelected() {
  [...$("found").children].forEach((option, number) => option.setAttribute("aria-selected", number === selected && found.length > 0));
  $("query").setAttribute("aria-activedescendant", found.length ? `found-${selected}` : "");
  $("found").children[selected]?.scrollIntoView({ block: "nearest" });
}

function closeDialog(dialog) {
  dialog.close();
  document.activeElement?.blur(); // browsers do so a moment later, when the next key may be down
}

function take(label) {
  closeDialog($("search"));
  if (label !== undefined) choose(label);
}

$("query").addEventListener("input", showFound);
$("query").addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && found.length) {
    selected = (selected + step + found.length) % found.length;
    showSelected();
  } else if (event.key === "Enter" && found.length) take(found[selected]);
  else return;
  event.preventDefault();
});
for (const dialog of [$("search"), $("help")]) {
  dialog.addEventListener("click", (event) => event.target === dialog && closeDialog(dialog));
  dialog.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing) return;
    event.preventDefault();
    event.stopPropagation();
    closeDialog(dialog);
  });
}

// Keys and buttons

const ACTIONS = {
  accept: () => clip && accept(),
  change: () => search("The only label", onlyLabel),
  add: () => search("Add a label", (label) => !clip.labels.includes(label) && toggle(label)),
  remove: () => clip && decide("removed", currentLabels(clip.index)),
  unsure: () => clip && decide("unsure", currentLabels(clip.index)),
  undo,
  previous: () => go(-1),
  next: () => go(1),
  play: playOrPause,
  keys: () => $("help").showModal(),
  filter: toggleFilters,
  "done-back": () => goTo(place),
  "done-undo": undo,
};
const KEYS = {
  Enter: "accept", a: "accept", c: "change", "+": "add", l: "add", x: "remove", Delete: "remove", u: "unsure", z: "undo",
  Backspace: "undo", ArrowLeft: "previous", k: "previous", ArrowRight: "next", j: "next", " ": "play", "?": "keys", h: "keys", f: "filter",
};

for (const [id, action] of Object.entries(ACTIONS))
  $(id).addEventListener("click", (event) => {
    if (event.detail) $(id).blur(); // a mouse leaves no focus behind, so that Enter stays the key of the page
    action();
  });

function toggleFilters() {
  $("filters").hidden = !$("filters").hidden;
  $("filter").setAttribute("aria-expanded", !$("filters").hidden);
  if (!$("filters").hidden) $("filters").elements.show.focus();
}

$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("change", () => {
  fillQueue();
  start();
});

document.addEventListener("keydown", (event) => {
  if (event.isComposing || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.altKey || ((event.ctrlKey || event.metaKey) && event.key !== "z")) return;
  if ((event.key === "Enter" || event.key === " ") && event.target.closest("button")) return;
  const name = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code)?.[1];
  const example = EXAMPLE_KEYS.indexOf(event.key.toUpperCase());
  if (name) {
    event.preventDefault();
    if (!event.repeat || name === "previous" || name === "next") ACTIONS[name]();
  } else if (digit && clip && !event.repeat && !busy && session.editable) {
    event.preventDefault();
    if (digit === "0") return noClass();
    const label = clip.predictions[digit - 1]?.[0];
    if (label !== undefined) event.shiftKey ? toggle(label) : onlyLabel(label);
  } else if (example >= 0 && clip && !event.repeat) nextExample(example);
});

$("spectrogram").addEventListener("pointerdown", (event) => {
  if (!clip?.samples) return;
  const box = $("spectrogram").getBoundingClientRect();
  player.wanted = true;
  if (player.samples !== clip.samples) player.load(clip.samples);
  player.play(((event.clientX - box.left) / box.width) * clip.samples.duration);
});
for (const kind of ["keydown", "pointerdown"])
  document.addEventListener(kind, () => {
    if (!player.context) player.wanted = true; // from the first key on, clips play as they open
  }, { capture: true });

function start() {
  const first = queue.length ? 0 : -1;
  if (first < 0) showDone();
  else goTo(first);
}

async function load() {
  try {
    session = await call("/session");
  } catch (error) {
    document.body.replaceChildren(element("p", { textContent: error.message }));
    return;
  }
  session.rows = new Map(Object.entries(session.rows));
  document.title = `Review ${session.title}`;
  $("title").textContent = session.title;
  $("actions").hidden = !session.editable;
  $("add").hidden = session.single_label;
  if (session.unlabeled) $("labels-title").textContent = "Labels";
  for (const row of document.querySelectorAll(".unlabeled")) row.hidden = !session.unlabeled || session.single_label;
  try {
    undoable = JSON.parse(sessionStorage.getItem(UNDO_KEY())) ?? [];
  } catch {
    undoable = [];
  }
  fillFilters();
  fillQueue();
  start();
}

load();
