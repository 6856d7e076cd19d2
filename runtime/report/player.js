"use strict";
// Plays several signals in step. Where the page can read their bytes and they fit in memory, they are decoded into one
// AudioContext, whose clock starts them together to the sample. Else (a page that is opened as a file may not read, an
// hour is too long) media elements play, silent until they are in step: who is behind runs a little faster, who is ahead
// slower. Afterwards they are held so. Nothing of the page is known here.
class Buffers {
  constructor(context) { Object.assign(this, {context, tracks: [], sources: [], from: 0, at: 0, loop: null, turn: 0}); }
  // Decodes all tracks; those that can't be carry `failed`. Throws where none can.
  async load(tracks, ready) {
    let count = 0;
    await Promise.all(tracks.map(async track => {
      try {
        const answer = await fetch(track.url);
        if (!answer.ok) throw new Error(answer.statusText);
        track.buffer = await this.context.decodeAudioData(await answer.arrayBuffer());
      } catch (error) {
        track.failed = String(error.message || error);
      }
      ready(++count / tracks.length);
    }));
    this.tracks = tracks.filter(track => track.buffer);
    if (!this.tracks.length) throw new Error("nothing can be read");
  }
  async start(at, loop) {
    const turn = ++this.turn;
    if (this.context.state !== "running") await this.context.resume();
    if (turn !== this.turn) return;
    this.from = this.context.currentTime + 0.06; // all sources are given one moment in the future
    Object.assign(this, {at, loop: loop && at < loop[1] ? loop : null});
    this.sources = this.tracks.filter(({buffer, begins}) => at + begins < buffer.duration).map(({buffer, begins, node}) => {
      const source = new AudioBufferSourceNode(this.context, {buffer});
      if (this.loop) {
        [source.loopStart, source.loopEnd] = this.loop.map(seconds => seconds + begins);
        source.loop = true;
      }
      source.connect(node);
      source.start(this.from, at + begins);
      return source;
    });
  }
  stop() {
    this.turn++;
    for (const source of this.sources) { source.stop(); source.disconnect(); }
    this.sources = [];
  }
  get position() {
    const at = this.at + Math.max(0, this.context.currentTime - this.from);
    if (!this.loop || at < this.loop[1]) return at;
    const [a, b] = this.loop;
    return a + (at - b) % (b - a);
  }
  get ended() { return false; }
  level() {}
}

class Elements {
  static CLOSE = 0.001; // seconds that count as in step; twice that, once they are
  static SILENT = 1e-5; // what is muted, or of volume 0, goes another way and loses its step
  constructor() { Object.assign(this, {tracks: [], levels: new Map(), together: false, turn: 0}); }
  async load(tracks, ready) {
    this.tracks = tracks;
    let count = 0;
    await Promise.all(tracks.map(async track => {
      const audio = track.audio ??= new Audio(track.url);
      audio.preload = "auto";
      audio.preservesPitch = false; // else an element out of step sounds stretched
      track.failed = "";
      await new Promise(done => {
        if (audio.readyState >= 3 || audio.error) done();
        for (const kind of ["canplay", "error"]) audio.addEventListener(kind, done, {once: true});
        setTimeout(done, 10000);
      });
      if (audio.error) track.failed = audio.error.message || "can't be played";
      ready(++count / tracks.length);
    }));
  }
  get usable() { return this.tracks.filter(({audio}) => !audio.error); }
  async start(at) {
    const turn = ++this.turn;
    this.together = false;
    this.apply();
    await Promise.all(this.usable.map(({audio, begins}) => new Promise(done => {
      audio.addEventListener("seeked", done, {once: true});
      setTimeout(done, 3000);
      audio.currentTime = at + begins;
    })));
    if (turn !== this.turn) return;
    const begun = await Promise.allSettled(this.usable.map(({audio}) => audio.play()));
    if (turn !== this.turn) return;
    if (!begun.some(one => one.status === "fulfilled")) throw new Error("nothing can be played");
    this.patience = performance.now() + 3000;
    this.calm = 0;
    for (const track of this.tracks) { track.mean = undefined; track.steady = false; }
    clearInterval(this.timer);
    this.timer = setInterval(() => this.watch(), 20);
  }
  stop() {
    this.turn++;
    clearInterval(this.timer);
    for (const {audio} of this.tracks) { audio.pause(); audio.playbackRate = 1; }
  }
  // The clock of all: the first that sounds.
  get first() { return this.usable.find(track => this.levels.get(track)) ?? this.usable[0]; }
  // What an element has ahead of it, in seconds.
  lead({audio, begins}) { return audio.currentTime - begins - this.position; }
  watch() {
    let all = true;
    for (const track of this.usable) {
      if (track === this.first || track.audio.seeking || track.audio.ended) continue;
      const lead = this.lead(track);
      if (Math.abs(lead) > 0.5) {
        track.audio.currentTime -= lead;
        track.mean = undefined;
        all = false;
        continue;
      }
      track.mean = (track.mean ?? lead) + 0.25 * (lead - (track.mean ?? lead)); // an element's clock jitters
      track.steady = Math.abs(track.mean) < (track.steady ? 2 : 1) * Elements.CLOSE;
      const most = this.together && this.levels.get(track) ? 0.01 : 0.1; // 0.01 is a sixth of a semitone
      track.audio.playbackRate = track.steady ? 1 : 1 - Math.max(-most, Math.min(most, 4 * track.mean));
      all &&= track.steady;
    }
    this.calm = all ? this.calm + 1 : 0;
    if (!this.together && (this.calm >= 8 || performance.now() > this.patience)) {
      this.together = true;
      this.apply();
    }
  }
  get position() {
    const first = this.first;
    return first ? first.audio.currentTime - first.begins : 0;
  }
  get ended() { return Boolean(this.first?.audio.ended); }
  level(track, gain) { this.levels.set(track, gain); this.apply(); }
  apply() {
    for (const [{audio}, gain] of this.levels) {
      audio.volume = this.together && gain ? Math.min(1, gain) : Elements.SILENT;
      audio.muted = audio.volume === 1 && gain === 0; // where volume can't be set
    }
  }
}

// Tells of itself by the events "change" and, while it plays, "time".
class Player extends EventTarget {
  // tracks: [{url, name, begins, gain, alone, audio}]: where in its file a signal begins (seconds), how loud it is, whether
  // it only sounds as a solo, the media element that the page has for it. rate: of the files; limited: with a limiter
  // behind the sum; budget: bytes that decoded samples may take. Loads when it is first played, or before.
  constructor(tracks, {seconds, rate, limited = false, budget = 768 * 2 ** 20}) {
    super();
    const usual = {begins: 0, gain: 1, alone: false, level: 1, mute: false, solo: false, failed: "", buffer: null, node: null};
    this.tracks = tracks.map(track => ({...usual, ...track}));
    Object.assign(this, {length: seconds, rate, limited, budget, loop: null, playing: false, busy: false, at: 0, engine: null});
  }
  get decoded() { return this.engine instanceof Buffers; }
  get position() { return Math.min(this.length, this.playing && !this.busy ? this.engine.position : this.at); }

  // Resolves when everything can be played; onprogress gets 0 to 1. Tracks that can't be carry `failed`.
  load(onprogress = () => {}) { return this.loading ??= this._load(onprogress); }
  async _load(ready) {
    const context = new AudioContext(this.rate ? {sampleRate: this.rate} : {});
    let engine = new Buffers(context);
    try {
      if (8 * context.sampleRate * this.length * this.tracks.length > this.budget) throw new RangeError("too long for memory");
      const sum = this.limited ? new DynamicsCompressorNode(context, {threshold: -1, ratio: 20, knee: 0, attack: 0.001}) : null;
      sum?.connect(context.destination);
      await engine.load(this.tracks, ready);
      for (const track of this.tracks) {
        track.node = new GainNode(context, {gain: 0});
        track.node.connect(sum ?? context.destination);
      }
      this.context = context;
    } catch {
      context.close();
      engine = new Elements();
      await engine.load(this.tracks, ready);
    }
    this.engine = engine;
    this.mix();
    this._tell();
  }

  async play() {
    if (this.playing || this.busy) return;
    if (this.at >= this.length - 0.01) this.at = 0;
    this.playing = true;
    await this._start();
  }
  async _start() {
    const turn = this.turn = (this.turn ?? 0) + 1;
    this.busy = true;
    this._tell();
    try {
      await this.load();
      if (turn === this.turn) await this.engine.start(this.at, this.loop);
    } catch {
      if (turn === this.turn) { this.playing = false; this.engine?.stop(); }
    }
    if (turn !== this.turn) return;
    this.busy = false;
    clearInterval(this.timer);
    if (this.playing) this.timer = setInterval(() => this._watch(), 50);
    this._tell();
  }
  pause() { this._stop(this.position); }
  _stop(at) {
    if (!this.playing) return;
    Object.assign(this, {at, playing: false, busy: false, turn: this.turn + 1});
    clearInterval(this.timer);
    this.engine?.stop();
    this._tell();
  }
  async seek(seconds) {
    this.at = Math.min(Math.max(seconds, 0), this.length);
    if (!this.playing) return this._tell();
    this.engine?.stop();
    await this._start();
  }
  // Repeats [from, to] seconds; null plays on.
  repeat(part) {
    const at = this.position;
    this.loop = part && part[1] - part[0] > 0.05 ? part : null;
    return this.seek(this.loop && (at < part[0] || at >= part[1]) ? part[0] : at);
  }
  set(track, change) {
    Object.assign(track, change);
    this.mix();
    this._tell();
  }
  audible(track) {
    const solo = this.tracks.some(other => other.solo);
    return !track.failed && (solo ? track.solo && !track.mute : !track.alone && !track.mute);
  }
  mix() {
    for (const track of this.tracks) {
      const gain = this.audible(track) ? track.gain * track.level : 0;
      this.engine?.level(track, gain);
      if (!track.node) continue;
      const now = this.context.currentTime, heard = track.node.gain;
      heard.cancelScheduledValues(now);
      heard.setValueAtTime(heard.value, now);
      heard.linearRampToValueAtTime(gain, now + 0.01); // a step would click
    }
  }

  // What is heard now, from begin to end, as a 16-bit WAV.
  async render() {
    const sounding = this.tracks.filter(track => track.buffer && this.audible(track) && track.level > 0);
    if (!sounding.length) throw new Error("nothing can be heard: unmute a stem");
    const rate = this.context.sampleRate, offline = new OfflineAudioContext(2, Math.ceil(this.length * rate), rate);
    for (const track of sounding) {
      const source = new AudioBufferSourceNode(offline, {buffer: track.buffer});
      source.connect(new GainNode(offline, {gain: track.gain * track.level})).connect(offline.destination);
      source.start(0, track.begins);
    }
    return wav(await offline.startRendering());
  }

  close() {
    this._stop(0);
    for (const {audio} of this.tracks) audio?.removeAttribute("src");
    return this.context?.close();
  }
  _watch() {
    const at = this.position;
    if (this.loop && !this.decoded && at >= this.loop[1]) { this.seek(this.loop[0]); return; }
    if (!this.loop && (at >= this.length - 0.005 || this.engine.ended)) { this._stop(this.length); return; }
    this.dispatchEvent(new Event("time"));
  }
  _tell() { this.dispatchEvent(new Event("change")); }
}

// An AudioBuffer as a 16-bit WAV; what is louder than full scale is scaled down as a whole.
function wav(buffer) {
  const channels = [...Array(buffer.numberOfChannels).keys()].map(c => buffer.getChannelData(c));
  let peak = 1;
  for (const data of channels) for (const x of data) peak = Math.max(peak, Math.abs(x));
  const count = buffer.length * channels.length * 2, bytes = new DataView(new ArrayBuffer(44 + count));
  const text = (at, s) => [...s].forEach((c, k) => bytes.setUint8(at + k, c.charCodeAt(0)));
  text(0, "RIFF"); bytes.setUint32(4, 36 + count, true); text(8, "WAVEfmt "); bytes.setUint32(16, 16, true);
  bytes.setUint16(20, 1, true); bytes.setUint16(22, channels.length, true); bytes.setUint32(24, buffer.sampleRate, true);
  bytes.setUint32(28, buffer.sampleRate * channels.length * 2, true); bytes.setUint16(32, channels.length * 2, true);
  bytes.setUint16(34, 16, true); text(36, "data"); bytes.setUint32(40, count, true);
  const samples = new Int16Array(bytes.buffer, 44);
  for (let n = 0; n < buffer.length; n++) for (let c = 0; c < channels.length; c++) {
    samples[n * channels.length + c] = Math.round(channels[c][n] / peak * 32767);
  }
  return new Blob([bytes.buffer], {type: "audio/wav"});
}
