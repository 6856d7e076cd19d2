"use strict";
// The stems sound together, and the mixture in their place. Where the page can read their bytes (it comes from a server)
// and they fit in memory, they are decoded into one AudioContext, whose clock starts them together to the sample. A page
// that is opened as a file may not do that. Then media elements play, silent until they are in step: who is behind runs a
// little faster, who is ahead slower. Afterwards they are held so.
class Buffers {
  constructor(context, buffers, tracks) {
    Object.assign(this, {context, buffers, tracks, sources: [], from: 0, at: 0});
    this.gains = tracks.map(track => new GainNode(context, {gain: 0}));
    for (const gain of this.gains) gain.connect(context.destination);
  }
  static LIMIT = 768 * 2 ** 20; // bytes of decoded sound
  static async load(tracks, seconds, rate) {
    if (8 * rate * seconds * tracks.length > Buffers.LIMIT) throw new RangeError("too long for memory");
    const context = new AudioContext({sampleRate: rate});
    try {
      const decoded = async track => {
        const answer = await fetch(track.audio.src);
        if (!answer.ok) throw new Error(answer.statusText);
        return context.decodeAudioData(await answer.arrayBuffer());
      };
      const found = await Promise.all(tracks.map(async track => ({
        track, buffer: await (track.mixture ? decoded(track).catch(() => null) : decoded(track)),
      })));
      for (const {track, buffer} of found) if (!buffer) track.failed();
      const heard = found.filter(one => one.buffer);
      return new Buffers(context, heard.map(one => one.buffer), heard.map(one => one.track));
    } catch (error) {
      context.close();
      throw error;
    }
  }
  async start(at) {
    await this.context.resume();
    const when = this.context.currentTime + 0.05;
    this.sources = this.buffers.map((buffer, k) => {
      const source = new AudioBufferSourceNode(this.context, {buffer});
      source.connect(this.gains[k]);
      source.start(when, at + this.tracks[k].begins);
      return source;
    });
    this.from = when;
    this.at = at;
  }
  stop() {
    for (const source of this.sources) source.stop();
    this.sources = [];
  }
  get position() { return this.at + Math.max(0, this.context.currentTime - this.from); }
  level(track, gain) {
    const k = this.tracks.indexOf(track);
    if (k >= 0) this.gains[k].gain.value = gain;
  }
}

class Elements {
  constructor(tracks) {
    this.tracks = tracks;
    this.levels = new Map();
    this.together = false;
    for (const {audio} of tracks) audio.preservesPitch = false; // else an element out of step sounds stretched
  }
  static CLOSE = 0.001; // seconds that count as in step; twice that, once they are
  static SILENT = 1e-5; // what is muted, or of volume 0, goes another way and loses its step
  get usable() { return this.tracks.filter(({audio}) => !audio.error); }
  async start(at) {
    this.together = false;
    this.apply();
    const ready = this.usable.map(({audio, begins}) => new Promise(done => {
      audio.addEventListener("seeked", done, {once: true});
      setTimeout(done, 3000);
      audio.currentTime = at + begins;
    }));
    await Promise.all(ready);
    const begun = await Promise.allSettled(this.usable.map(({audio}) => audio.play()));
    if (!begun.some(one => one.status === "fulfilled")) throw new Error("nothing can be played");
    this.patience = performance.now() + 3000;
    this.calm = 0;
    for (const track of this.tracks) { track.mean = undefined; track.steady = false; }
    this.timer = setInterval(() => this.hold(), 20);
  }
  stop() {
    clearInterval(this.timer);
    for (const {audio} of this.tracks) { audio.pause(); audio.playbackRate = 1; }
  }
  // The clock of all: the first that sounds.
  get first() { return this.usable.find(track => this.levels.get(track)) ?? this.usable[0]; }
  // What an element has ahead of it, in seconds.
  lead({audio, begins}) { return audio.currentTime - begins - this.position; }
  hold() {
    let all = true;
    for (const track of this.usable) {
      if (track === this.first) continue;
      if (track.audio.seeking || track.audio.ended) continue;
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
  level(track, gain) { this.levels.set(track, gain); this.apply(); }
  apply() {
    for (const [{audio}, gain] of this.levels) {
      audio.volume = this.together && gain ? Math.min(1, gain) : Elements.SILENT;
      audio.muted = audio.volume === 1 && gain === 0; // where volume can't be set
    }
  }
}

(() => {
  const tracks = [...document.querySelectorAll("[data-begins]")].map(section => ({
    section, audio: section.querySelector("audio"), mixture: section.id === "mixture",
    begins: Number(section.dataset.begins), gain: Number(section.dataset.gain),
  })).filter(track => track.audio);
  if (!tracks.length) return;
  const play = document.getElementById("play"), slider = document.getElementById("position");
  const time = document.getElementById("time"), heads = [...document.querySelectorAll(".head")];
  const length = Number(slider.max), rate = Number(slider.dataset.rate);
  const clock = s => Math.floor(s / 60) + ":" + String(Math.floor(s % 60)).padStart(2, "0");
  const state = window.player = {engine: null, playing: false, busy: false, at: 0};
  const show = () => {
    slider.value = state.at;
    slider.setAttribute("aria-valuetext", clock(state.at));
    time.textContent = clock(state.at) + " / " + clock(length);
    for (const head of heads) head.style.left = 100 * state.at / length + "%";
    play.textContent = state.busy ? "Loading" : state.playing ? "Pause" : "Play";
  };
  const pressed = (track, kind) => track.section.querySelector("." + kind)?.getAttribute("aria-pressed") === "true";
  const mix = () => {
    const solo = tracks.some(track => pressed(track, "solo"));
    for (const track of tracks) {
      const heard = solo ? pressed(track, "solo") : !track.mixture && !pressed(track, "mute");
      track.section.classList.toggle("silent", !heard && (solo || !track.mixture));
      state.engine?.level(track, heard ? track.gain : 0);
    }
  };
  const engine = async () => {
    if (state.engine) return state.engine;
    try {
      state.engine = await Buffers.load(tracks, length, rate);
    } catch {
      state.engine = new Elements(tracks);
    }
    mix();
    return state.engine;
  };
  const stop = () => { state.playing = false; state.engine?.stop(); show(); };
  const start = async () => {
    if (state.busy) return;
    state.busy = true;
    show();
    try {
      if (state.at >= length - 0.01) state.at = 0;
      await (await engine()).start(state.at);
      state.playing = true;
      requestAnimationFrame(follow);
    } catch {
      state.engine?.stop();
    }
    state.busy = false;
    show();
  };
  const follow = () => {
    if (!state.playing) return;
    state.at = Math.min(length, state.engine.position);
    if (state.at >= length - 0.005) { state.at = length; stop(); return; }
    show();
    requestAnimationFrame(follow);
  };
  const seek = async seconds => {
    const playing = state.playing;
    if (playing) stop();
    state.at = Math.min(Math.max(seconds, 0), length);
    show();
    if (playing) await start();
  };
  for (const track of tracks) {
    track.audio.controls = false;
    track.audio.hidden = true;
    track.failed = () => { track.section.querySelector(".failed").hidden = false; };
    track.audio.addEventListener("error", track.failed);
    if (track.audio.error) track.failed();
    for (const button of track.section.querySelectorAll("button")) {
      button.hidden = false;
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
        mix();
      });
    }
  }
  for (const area of document.querySelectorAll(".seek")) area.addEventListener("click", event => {
    const box = area.getBoundingClientRect();
    seek(length * (event.clientX - box.left) / box.width);
  });
  play.addEventListener("click", () => state.playing ? stop() : start());
  slider.addEventListener("change", () => seek(Number(slider.value)));
  slider.addEventListener("input", () => { if (!state.playing) seek(Number(slider.value)); });
  document.addEventListener("keydown", event => {
    if (event.key !== " " || event.target.closest("button, input, a, summary")) return;
    event.preventDefault();
    state.playing ? stop() : start();
  });
  document.getElementById("transport").hidden = false;
  for (const head of heads) head.hidden = false;
  document.body.classList.add("ready");
  mix();
  show();
})();
