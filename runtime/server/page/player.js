"use strict";
// Plays several signals in step: to the sample where they are decoded into memory, else media elements that are held
// together. No element of the page is known here.
class Player extends EventTarget {
  // tracks: [{name, url, seconds}]; budget: bytes that decoded samples may take.
  constructor(tracks, budget = 1.2e9) {
    super();
    this.context = new AudioContext({latencyHint: "interactive"});
    this.master = new DynamicsCompressorNode(this.context, {threshold: -1, ratio: 20, knee: 0, attack: 0.001});
    this.master.connect(this.context.destination);
    this.length = Math.max(0, ...tracks.map(track => track.seconds));
    this.tracks = tracks.map(track => {
      const gain = new GainNode(this.context);
      gain.connect(this.master);
      return {...track, gain, level: 1, mute: false, solo: false, buffer: null, source: null, media: null};
    });
    const bytes = tracks.length * this.length * this.context.sampleRate * 2 * 4;
    this.decoded = bytes <= budget;
    this.playing = false;
    this.loop = null;       // [from, to] in seconds
    this.begun = 0;         // context time at which position `from` sounds
    this.from = 0;
    this.timer = null;
    this.mix();
  }

  // Resolves when everything can be played; onprogress gets 0 to 1. Tracks that can't be decoded carry `failed`.
  async load(onprogress = () => {}) {
    let ready = 0;
    const one = async track => {
      try {
        if (this.decoded) {
          const answer = await fetch(track.url);
          if (!answer.ok) throw new Error(answer.statusText);
          track.buffer = await this.context.decodeAudioData(await answer.arrayBuffer());
        } else {
          track.media = new Audio(track.url);
          track.media.preload = "auto";
          track.media.preservesPitch = false;
          new MediaElementAudioSourceNode(this.context, {mediaElement: track.media}).connect(track.gain);
          await new Promise((resolve, reject) => {
            track.media.addEventListener("canplaythrough", resolve, {once: true});
            track.media.addEventListener("error", () => reject(new Error("can't be played")), {once: true});
          });
        }
      } catch (error) {
        track.failed = String(error.message || error);
      }
      onprogress(++ready / this.tracks.length);
    };
    await Promise.all(this.tracks.map(one));
    const lengths = this.tracks.filter(track => track.buffer).map(track => track.buffer.duration);
    if (lengths.length) this.length = Math.max(...lengths);
  }

  get position() {
    if (!this.playing) return this.from;
    let at = this.from + Math.max(0, this.context.currentTime - this.begun);
    if (this.loop && this.from < this.loop[1] && at >= this.loop[1]) {
      const [a, b] = this.loop;
      at = a + (at - b) % (b - a);
    }
    return Math.min(at, this.length);
  }

  async play() {
    if (this.playing) return;
    await this.context.resume();
    if (this.from >= this.length - 0.01) this.from = 0;
    this.playing = true;
    this._begin();
    this._tell();
  }

  pause() {
    if (!this.playing) return;
    this.from = this.position;
    this.playing = false;
    this._end();
    this._tell();
  }

  seek(seconds) {
    const at = Math.min(Math.max(seconds, 0), this.length);
    if (this.playing) this._end();
    this.from = at;
    if (this.playing) this._begin();
    this._tell();
  }

  // Repeats [from, to] seconds; null plays on.
  repeat(part) {
    const at = this.position;
    this.loop = part && part[1] - part[0] > 0.05 ? part : null;
    this.seek(this.loop && (at < part[0] || at >= part[1]) ? part[0] : at);
  }

  set(track, change) {
    Object.assign(track, change);
    this.mix();
    this._tell();
  }

  audible(track) {
    return !track.failed && !track.mute && (track.solo || !this.tracks.some(other => other.solo));
  }

  mix() {
    for (const track of this.tracks) {
      track.gain.gain.setTargetAtTime(this.audible(track) ? track.level : 0, this.context.currentTime, 0.005);
    }
  }

  // What is heard now, from begin to end, as a 16-bit WAV.
  async render() {
    const sounding = this.tracks.filter(track => track.buffer && this.audible(track) && track.level > 0);
    if (!sounding.length) throw new Error("nothing can be heard: unmute a stem");
    const rate = this.context.sampleRate, offline = new OfflineAudioContext(2, Math.ceil(this.length * rate), rate);
    for (const track of sounding) {
      const source = new AudioBufferSourceNode(offline, {buffer: track.buffer});
      source.connect(new GainNode(offline, {gain: track.level})).connect(offline.destination);
      source.start();
    }
    return wav(await offline.startRendering());
  }

  close() {
    this._end();
    for (const track of this.tracks) if (track.media) track.media.removeAttribute("src");
    return this.context.close();
  }

  _begin() {
    this.begun = this.context.currentTime + 0.06;   // all sources are given one moment in the future
    if (this.decoded) {
      for (const track of this.tracks) {
        if (!track.buffer || this.from >= track.buffer.duration) continue;
        const source = new AudioBufferSourceNode(this.context, {buffer: track.buffer});
        if (this.loop && this.from < this.loop[1]) {
          [source.loopStart, source.loopEnd] = this.loop;
          source.loop = true;
        }
        source.connect(track.gain);
        source.start(this.begun, this.from);
        track.source = source;
      }
    } else {
      this.begun = this.context.currentTime;
      for (const track of this.tracks) if (track.media && !track.failed) {
        track.media.currentTime = this.from;
        track.media.playbackRate = 1;
        track.media.play().catch(() => {});
      }
    }
    clearInterval(this.timer);
    this.timer = setInterval(() => this._watch(), this.decoded ? 50 : 20);
  }

  _end() {
    clearInterval(this.timer);
    for (const track of this.tracks) {
      if (track.source) { track.source.stop(); track.source.disconnect(); track.source = null; }
      if (track.media) track.media.pause();
    }
  }

  // Ends at the end; media elements that drift are drawn to the first by their speed, which is heard less than a jump.
  _watch() {
    if (!this.decoded) {
      const media = this.tracks.filter(track => track.media && !track.failed).map(track => track.media);
      const [clock, ...others] = media;
      if (clock) {
        if (this.loop && clock.currentTime >= this.loop[1]) return this.seek(this.loop[0]);
        this.from = clock.currentTime;
        this.begun = this.context.currentTime;
        for (const other of others) {
          const late = clock.currentTime - other.currentTime;
          if (Math.abs(late) > 0.25) other.currentTime = clock.currentTime;
          else other.playbackRate = Math.abs(late) < 0.001 ? 1 : 1 + Math.max(-0.05, Math.min(0.05, late * 2));
        }
      }
    }
    if (this.position >= this.length - 0.005 && !this.loop) {
      this.from = this.length;
      this.playing = false;
      this._end();
    }
    this._tell();
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
