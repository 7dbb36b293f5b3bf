// Tags sounds with an ONNX file of audiotag, by onnxruntime-web. The same windows and pooling as
// audiotag/serving/converted_models.py, for "sliding" windows, apart from one case: with "flip_tta": "clip" no window
// starts from the end of a recording. Recordings are not trimmed.
"use strict";

const WINDOWS_AT_A_TIME = 16;

class Tagger {
  static async load(buffer) {
    const settings = readSettings(new Uint8Array(buffer));
    if (settings.windows !== "sliding") {
      throw new Error(`this page cuts sliding windows, and the model expects ${settings.windows}. `
        + "Export it with --set predict.windows=sliding");
    }
    ort.env.wasm.numThreads = 1; // more need a page that is isolated from other origins
    return new Tagger(settings, await ort.InferenceSession.create(buffer));
  }

  constructor(settings, session) {
    this.settings = settings;
    this.session = session;
    this.rate = settings.audio_config.sample_rate;
  }

  // The samples of a recording: its channels averaged, at the rate of the model.
  async decode(buffer) {
    const audio = await new OfflineAudioContext(1, 1, this.rate).decodeAudioData(buffer);
    const mean = new Float32Array(audio.length);
    for (let channel = 0; channel < audio.numberOfChannels; channel++) {
      audio.getChannelData(channel).forEach((sample, index) => { mean[index] += sample / audio.numberOfChannels; });
    }
    const peakDb = this.settings.audio_config.peak_db;
    if (peakDb !== null) {
      const peak = mean.reduce((largest, sample) => Math.max(largest, Math.abs(sample)), 0);
      if (peak > 0) mean.forEach((sample, index) => { mean[index] = sample * 10 ** (peakDb / 20) / peak; });
    }
    return mean;
  }

  // The probabilities [K] of a waveform.
  async tag(waveform) {
    const windows = cutWindows(waveform, this.settings), scores = [];
    for (let first = 0; first < windows.length; first += WINDOWS_AT_A_TIME) {
      const block = windows.slice(first, first + WINDOWS_AT_A_TIME), n = block[0].length;
      const samples = new Float32Array(block.length * n);
      block.forEach((window, index) => samples.set(window, index * n));
      const outputs = await this.session.run({ windows: new ort.Tensor("float32", samples, [block.length, n]) });
      const { data, dims: [, models, classes] } = outputs.logits, size = models * classes;
      block.forEach((_, index) => scores.push(data.slice(index * size, (index + 1) * size)));
    }
    return pool(scores, this.settings.vocabulary.length, this.settings.pool);
  }

  // Calls `show` with the probabilities of the last window of the microphone, once per hop; returns what stops it.
  async listen(show) {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    const context = new AudioContext({ sampleRate: this.rate });
    const worklet = "registerProcessor('samples', class extends AudioWorkletProcessor {"
      + "process([[channel]]) { if (channel) this.port.postMessage(channel.slice()); return true; } })";
    const url = URL.createObjectURL(new Blob([worklet], { type: "text/javascript" }));
    await context.audioWorklet.addModule(url);
    URL.revokeObjectURL(url);
    const samples = new AudioWorkletNode(context, "samples", { channelCount: 1, channelCountMode: "explicit" });
    context.createMediaStreamSource(stream).connect(samples);
    const last = new Float32Array(this.settings.window_samples);
    let fresh = 0, received = 0, busy = false;
    samples.port.onmessage = async ({ data }) => {
      last.copyWithin(0, data.length);
      last.set(data, last.length - data.length);
      fresh += data.length;
      received += data.length;
      if (received < last.length || fresh < this.settings.hop || busy) return;
      fresh = 0;
      busy = true;
      show(await this.tag(last.slice()));
      busy = false;
    };
    return () => { stream.getTracks().forEach((track) => track.stop()); context.close(); };
  }
}

// The windows of a waveform, up to its last sample that is not 0.
function cutWindows(waveform, { window_samples: n, hop, pad }) {
  let length = waveform.length;
  while (length > 1 && waveform[length - 1] === 0) length--;
  if (length < n) {
    const window = new Float32Array(n), before = pad === "repeat" ? 0 : Math.floor((n - length) / 2);
    for (let index = 0; index < (pad === "repeat" ? n : length); index++) {
      window[before + index] = length ? waveform[index % Math.max(length, 1)] ?? 0 : 0;
    }
    return [window];
  }
  const windows = [];
  for (let start = 0; start < length - n + hop; start += hop) {
    const first = Math.min(start, length - n);
    windows.push(waveform.slice(first, first + n));
  }
  return windows;
}

// The probabilities [K] of a recording from the logits of its windows, each [M * K] of M models or flips: they are pooled
// over the windows for each model, and then averaged.
function pool(scores, classes, how) {
  const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
  const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));
  const pooled = (logits) => {
    if (how === "mean") return mean(logits.map(sigmoid));
    const largest = logits.reduce((most, logit) => Math.max(most, logit));
    if (how === "max") return sigmoid(largest);
    return sigmoid(largest + Math.log(mean(logits.map((logit) => Math.exp(logit - largest))))); // log_mean_exp
  };
  return Float32Array.from({ length: classes }, (_, label) => {
    const columns = [];
    for (let place = label; place < scores[0].length; place += classes) columns.push(scores.map((score) => score[place]));
    return mean(columns.map(pooled));
  });
}

// The settings in an ONNX file: field 14 of the protocol buffer holds pairs of a key and a value.
function readSettings(bytes) {
  const text = new TextDecoder();
  for (const [field, content] of fields(bytes)) {
    if (field !== 14) continue;
    const pair = new Map(fields(content));
    if (text.decode(pair.get(1)) === "audiotag") return JSON.parse(text.decode(pair.get(2)));
  }
  throw new Error("this is no ONNX file of audiotag. Write one with: audiotag export RUN model.onnx");
}

function* fields(bytes) {
  let place = 0;
  const varint = () => {
    for (let value = 0, factor = 1; ; factor *= 128) {
      const byte = bytes[place++];
      if (byte === undefined) throw new Error("the model is not an ONNX file, or damaged.");
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (place < bytes.length) {
    const key = varint(), type = key & 7;
    if (type === 2) {
      const length = varint();
      if (place + length > bytes.length) throw new Error("the model is not an ONNX file, or damaged.");
      yield [Math.floor(key / 8), bytes.subarray(place, place + length)];
      place += length;
    } else if (type === 0) varint();
    else if (type === 1 || type === 5) place += type === 1 ? 8 : 4;
    else throw new Error("the model is not an ONNX file, or damaged.");
  }
}
