"use strict";
// The page of `ortsep serve`: sends songs, follows their jobs, plays their stems. Text from outside only goes through
// textContent.
const $ = id => document.getElementById(id);
const make = (kind, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(kind), properties);
  element.append(...children);
  return element;
};
const clock = s => Math.floor(s / 60) + ":" + String(Math.floor(s % 60)).padStart(2, "0");
const words = s => s < 90 ? Math.max(1, Math.round(s)) + " s" : Math.round(s / 60) + " min";

// The server's answer as JSON; an error is its one sentence.
async function ask(path, options = {}) {
  const answer = await fetch(path, options).catch(() => { throw new Error("the server can't be reached; is it running?"); });
  const body = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) throw Object.assign(new Error(body?.detail || answer.statusText), {status: answer.status});
  return body;
}

const server = {models: [], limits: {}};
const jobs = new Map();       // id -> {item, source, document}
let player = null, heard = null;

async function begin() {
  const session = await ask("/v1/session");
  $("enter").hidden = session.open;
  if (!session.open) { $("token").focus(); return; }
  Object.assign(server, await ask("/v1/models"));
  $("model").replaceChildren(...server.models.map(m => make("option", {value: m.name}, m.title || m.name)));
  $("model").value = localStorage.getItem("model") || server.default;
  if (!$("model").value) $("model").value = server.default;
  $("send").hidden = false;
  $("about").textContent = `ortsep ${server.version}. Results are kept for ${words(server.limits.keep).replace(" min", " minutes")}.`;
  if (server.limits.keep >= 5400) $("about").textContent = `ortsep ${server.version}. Results are kept for ${Math.round(server.limits.keep / 3600)} hours.`;
  advise();
  const {separations} = await ask("/v1/separations?limit=30");
  for (const known of separations.reverse()) show(known);
}

function advise() {
  const model = server.models.find(m => m.name === $("model").value);
  if (!model) { $("wrong").textContent = "This server has no model yet: ortsep export NAME makes one."; return; }
  localStorage.setItem("model", model.name);
  const parts = [`Gives ${model.stems.join(", ")}.`, model.advice, model.licence && `Licence of the weights: ${model.licence}`];
  $("advice").textContent = parts.filter(Boolean).join(" ");
  for (const field of fields()) field.closest("label").hidden = !model.options.includes(field.dataset.option);
  $("more").hidden = !fields().some(field => !field.closest("label").hidden);
}

// The options of models on the page, of which the chosen one's are shown and sent.
const fields = () => [...document.querySelectorAll("[data-option]")];

function wanted(form) {
  for (const field of fields()) {
    const value = field.type === "checkbox" ? (field.checked ? "true" : "") : field.value;
    if (value && !field.closest("label").hidden) form.append(field.dataset.option, value);
  }
}

// Sending ------------------------------------------------------------------------------------------------------------
function send(files) {
  $("wrong").textContent = "";
  for (const file of files) sendOne(file);
}

function sendOne(file) {
  if (file.size > server.limits.max_upload) {
    $("wrong").textContent = `${file.name} has ${Math.round(file.size / 1e6)} MB and this server takes ${Math.round(server.limits.max_upload / 1e6)}.`;
    return;
  }
  const form = new FormData();
  form.append("model", $("model").value);
  form.append("format", $("format").value);
  if ($("residual").checked) form.append("residual", "true");
  wanted(form);
  form.append("song", file);
  const bar = make("progress", {max: file.size || 1, value: 0});
  const state = make("span", {className: "state"}, "being sent");
  const stop = make("button", {type: "button"}, "Cancel");
  const item = make("li", {}, make("b", {}, file.name), state, make("div", {className: "buttons"}, stop), bar);
  $("work").hidden = false;
  $("jobs").prepend(item);
  const request = new XMLHttpRequest();       // fetch doesn't tell how much was sent
  const failed = text => { state.textContent = text; state.classList.add("error"); bar.remove(); stop.textContent = "Remove"; stop.onclick = () => item.remove(); };
  request.upload.onprogress = event => { bar.value = event.loaded; };
  request.onload = () => {
    let body = {};
    try { body = JSON.parse(request.responseText); } catch { /* an answer that is no JSON is told by its status */ }
    if (request.status >= 400 || !body.id) return failed(body.detail || `the server answered ${request.status}`);
    item.remove();
    show(body);
  };
  request.onerror = () => failed("the connection broke; send it again");
  stop.onclick = () => { request.abort(); item.remove(); };
  request.open("POST", "/v1/separations");
  request.setRequestHeader("Idempotency-Key", crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2) + Date.now());
  request.send(form);
}

// What the microphone hears, as it is: the browser's own treatment of speech would take the music out.
let recorder = null;
async function record() {
  if (recorder) { recorder.stop(); return; }
  $("wrong").textContent = "";
  const plain = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
  const stream = await navigator.mediaDevices.getUserMedia({audio: plain}).catch(error => {
    $("wrong").textContent = `The browser opens no microphone (${error.name}); allow it there, or choose a file.`;
  });
  if (!stream) return;
  const parts = [], began = Date.now(), now = new Date();
  const ticking = setInterval(() => { $("record").textContent = `Stop ${clock((Date.now() - began) / 1000)}`; }, 250);
  recorder = new MediaRecorder(stream);
  recorder.ondataavailable = event => parts.push(event.data);
  recorder.onstop = () => {
    clearInterval(ticking);
    for (const track of stream.getTracks()) track.stop();
    const kind = recorder.mimeType.match(/^[a-z]+.([a-z0-9]+)/)?.[1] || "webm";
    recorder = null;
    $("record").textContent = "Record";
    $("record").setAttribute("aria-pressed", "false");
    const moment = [now.getHours(), now.getMinutes(), now.getSeconds()].map(n => String(n).padStart(2, "0")).join(".");
    sendOne(new File(parts, `recording ${moment}.${kind}`));
  };
  recorder.start(1000);
  $("record").textContent = "Stop 0:00";
  $("record").setAttribute("aria-pressed", "true");
}

// Jobs ---------------------------------------------------------------------------------------------------------------
function show(known) {
  let job = jobs.get(known.id);
  if (!job) {
    job = {item: make("li"), source: null};
    jobs.set(known.id, job);
    $("jobs").prepend(job.item);
    $("work").hidden = false;
  }
  const over = ["done", "failed", "cancelled"].includes(known.state);
  if (job.state !== known.state) layOut(job, known, over);   // else a button would go from under a finger
  job.state = known.state;
  job.said.textContent = said(known);
  if (known.progress && !over) Object.assign(job.bar, {max: known.progress.total, value: known.progress.done});
  if (!over && !job.source) follow(job, known.id);
}

function layOut(job, known, over) {
  const buttons = make("div", {className: "buttons"});
  if (known.state === "done") buttons.append(make("button", {type: "button", className: "main", onclick: () => listen(known)}, "Listen"));
  buttons.append(make("button", {type: "button", onclick: () => remove(known.id), ariaLabel: `${over ? "Remove" : "Cancel"} ${known.song}`}, over ? "Remove" : "Cancel"));
  job.said = make("span", {className: known.state === "failed" ? "state error" : "state", role: "status"});
  job.bar = make("progress", {ariaLabel: `Progress of ${known.song}`});
  job.item.replaceChildren(make("b", {}, known.song), job.said, buttons, ...(over ? [] : [job.bar]));
}

function said(known) {
  if (known.state === "queued") return known.place > 1 ? `waits, ${known.place - 1} before it` : "is next";
  if (known.state === "running") {
    if (!known.progress) return "is being read";
    const left = known.progress.left;
    return `${Math.round(100 * known.progress.done / known.progress.total)} %` + (left ? `, ${words(left)} left` : "");
  }
  if (known.state === "done") {
    const result = known.result, warned = result.warnings?.length ? ` Note: ${result.warnings[0]}` : "";
    return `${clock(result.seconds)} of audio in ${words(result.processing_time)}, ${known.model}.${warned}`;
  }
  return known.error || known.state;
}

function follow(job, id) {
  job.source = new EventSource(`/v1/separations/${encodeURIComponent(id)}/events`);
  job.source.addEventListener("state", event => {
    const known = JSON.parse(event.data);
    if (["done", "failed", "cancelled"].includes(known.state)) job.source.close();
    show(known);
    if (known.state === "done" && !player) listen(known);
  });
  job.source.addEventListener("gone", () => { job.source.close(); job.item.remove(); jobs.delete(id); });
}

async function remove(id) {
  const job = jobs.get(id);
  await ask(`/v1/separations/${encodeURIComponent(id)}`, {method: "DELETE"}).catch(error => {
    if (error.status !== 404) throw error;
  });
  job?.source?.close();
  job?.item.remove();
  jobs.delete(id);
  if (heard === id) shut();
  if (!jobs.size) $("work").hidden = true;
}

// Listening ----------------------------------------------------------------------------------------------------------
async function listen(known) {
  shut();
  heard = known.id;
  const pictures = await ask(known.links.pictures).catch(() => ({signals: {}}));  // they can be heard undrawn
  const seconds = known.result.seconds;
  const stems = Object.entries(known.result.stems).map(([name, url]) => ({name, url, seconds}));
  const ours = player = new Player(stems, {seconds, limited: true, budget: 1.2e9});
  $("listen-title").textContent = known.song;
  $("all").href = known.links.archive;
  $("listen").hidden = false;
  $("play").disabled = $("render").disabled = true;
  $("position").max = seconds;
  $("tracks").replaceChildren(...player.tracks.map((track, k) => row(track, k, pictures)));
  draw(pictures);
  for (const kind of ["change", "time"]) player.addEventListener(kind, reflect);
  reflect();
  $("listen-title").focus({preventScroll: true});
  $("listen").scrollIntoView({block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth"});
  await player.load(share => { $("loading").textContent = share < 1 ? `Stems are loaded: ${Math.round(100 * share)} %` : ""; });
  if (player !== ours) return;
  const failed = player.tracks.filter(track => track.failed);
  if (failed.length) $("loading").textContent = `This browser can't play ${failed.map(t => t.name).join(", ")}; download them, or send the song again for another kind of files.`;
  $("play").disabled = failed.length === player.tracks.length;
  $("render").disabled = !player.decoded || $("play").disabled;
  reflect();
}

function shut() {
  player?.close();
  player = heard = null;
  $("listen").hidden = true;
}

function row(track, k, pictures) {
  const toggle = (kind, label) => make("button", {type: "button", className: kind, ariaPressed: "false",
    ariaLabel: `${label} ${track.name}`, onclick: () => player.set(track, {[kind]: !track[kind]})}, label);
  const gain = make("input", {type: "range", min: 0, max: 2, step: 0.01, value: 1, ariaLabel: `Level of ${track.name}`,
    oninput: () => player.set(track, {level: Number(gain.value)}), ondblclick: () => { gain.value = 1; player.set(track, {level: 1}); }});
  const save = make("a", {className: "button", href: track.url + "?download=true", download: "", ariaLabel: `Download ${track.name}`}, "Save");
  const rms = pictures.signals[track.name]?.rms, level = (20 * Math.log10(rms)).toFixed(1).replace("-", "−") + " dB RMS";
  const said = rms === undefined ? "not drawn" : rms > 1e-5 ? level : "silent";
  const canvas = make("canvas", {role: "img", ariaLabel: `${track.name}: ${said}`});
  const head = make("div", {className: "head"}), part = make("div", {className: "part", hidden: true});
  const picture = make("div", {className: "picture"}, canvas, part, head);
  drag(picture);
  track.view = {canvas, head, part, item: null, buttons: [toggle("mute", "Mute"), toggle("solo", "Solo")]};
  const controls = make("div", {className: "controls"}, make("b", {}, track.name), ...track.view.buttons, save, gain);
  return track.view.item = make("li", {}, controls, picture);
}

// A click seeks; a drag chooses the part that is repeated.
function drag(picture) {
  let from = null;
  const at = event => {
    const box = picture.getBoundingClientRect();
    return player.length * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  picture.addEventListener("pointerdown", event => { from = at(event); });
  picture.addEventListener("pointerup", event => {
    if (from === null || !player) return;
    const to = at(event);
    if (Math.abs(to - from) > player.length / 60) player.repeat([Math.min(from, to), Math.max(from, to)]);
    else player.seek(to);
    from = null;
  });
  picture.addEventListener("pointercancel", () => { from = null; });
}

function reflect() {
  if (!player) return;
  const at = player.position, share = player.length ? 100 * at / player.length : 0;
  $("position").max = player.length;
  $("position").value = at;
  $("position").setAttribute("aria-valuetext", clock(at));
  $("time").textContent = `${clock(at)} / ${clock(player.length)}`;
  $("play").textContent = player.playing ? "Pause" : "Play";
  $("repeat").setAttribute("aria-pressed", String(Boolean(player.loop)));
  for (const track of player.tracks) {
    const {head, part, item, buttons} = track.view;
    head.style.left = share + "%";
    part.hidden = !player.loop;
    if (player.loop) {
      part.style.left = 100 * player.loop[0] / player.length + "%";
      part.style.width = 100 * (player.loop[1] - player.loop[0]) / player.length + "%";
    }
    item.classList.toggle("silent", !player.audible(track));
    buttons[0].setAttribute("aria-pressed", String(track.mute));
    buttons[1].setAttribute("aria-pressed", String(track.solo));
  }
}

const bytes = (text, kind) => kind.from(atob(text), c => c.charCodeAt(0));

function draw(pictures) {
  if (!player) return;
  player.pictures = pictures;
  const style = getComputedStyle(document.documentElement);
  for (const track of player.tracks) {
    const {canvas} = track.view, signal = pictures.signals[track.name];
    if (!signal) continue;
    ($("spectra").checked ? spectrum : outline)(canvas, signal, style);
  }
}

function outline(canvas, signal, style) {
  const ink = canvas.getContext("2d"), height = 168;
  canvas.width = signal.columns; canvas.height = height;
  const low = new Int8Array(bytes(signal.low, Uint8Array)), high = new Int8Array(bytes(signal.high, Uint8Array));
  const line = new Int8Array(bytes(signal.line, Uint8Array));
  const bar = (colour, top, bottom) => {
    ink.fillStyle = style.getPropertyValue(colour);
    for (let k = 0; k < signal.columns; k++) {
      const a = height / 2 * (1 - top(k) / 127), b = height / 2 * (1 - bottom(k) / 127);
      ink.fillRect(k, a, 1, Math.max(1, b - a));
    }
  };
  bar("--pale", k => high[k], k => low[k]);
  bar("--wave", k => line[k], k => -line[k]);
}

function spectrum(canvas, signal) {
  const power = bytes(signal.power, Uint8Array), columns = power.length / signal.bands;
  canvas.width = columns; canvas.height = signal.bands;
  const ink = canvas.getContext("2d"), image = ink.createImageData(columns, signal.bands);
  for (let b = 0; b < signal.bands; b++) for (let c = 0; c < columns; c++) {
    const v = power[(signal.bands - 1 - b) * columns + c] / 255, at = 4 * (b * columns + c);
    image.data[at] = 255 * Math.min(1, v * 1.6);
    image.data[at + 1] = 255 * Math.max(0, v * 1.7 - 0.7);
    image.data[at + 2] = 255 * Math.min(1, 0.15 + Math.sin(Math.PI * v) * 0.6 + Math.max(0, v - 0.8) * 3);
    image.data[at + 3] = 255;
  }
  ink.putImageData(image, 0, 0);
}

async function save() {
  $("render").disabled = true;
  try {
    const url = URL.createObjectURL(await player.render());
    make("a", {href: url, download: `${$("listen-title").textContent.replace(/\.[^.]*$/, "")} - mix.wav`}).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  } catch (error) { $("loading").textContent = error.message; }
  $("render").disabled = false;
}

// What the person does -----------------------------------------------------------------------------------------------
$("enter").addEventListener("submit", async event => {
  event.preventDefault();
  $("refused").textContent = "";
  try {
    await ask("/v1/session", {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({token: $("token").value})});
    $("token").value = "";
    await begin();
  } catch (error) { $("refused").textContent = error.message; }
});
$("send").addEventListener("submit", event => event.preventDefault());
$("file").addEventListener("change", () => { send($("file").files); $("file").value = ""; });
$("record").hidden = !(navigator.mediaDevices && window.MediaRecorder);  // plain http to another machine has neither
$("record").addEventListener("click", record);
$("model").addEventListener("change", advise);
$("play").addEventListener("click", () => player.playing ? player.pause() : player.play());
$("position").addEventListener("input", () => player.seek(Number($("position").value)));
$("repeat").addEventListener("click", () => player.repeat(player.loop ? null : [player.position, Math.min(player.length, player.position + 10)]));
$("spectra").addEventListener("change", () => draw(player.pictures));
$("render").addEventListener("click", save);
$("shut").addEventListener("click", shut);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => player && draw(player.pictures));
for (const kind of ["dragenter", "dragover"]) addEventListener(kind, event => { event.preventDefault(); $("drop").classList.add("over"); });
for (const kind of ["dragleave", "drop"]) addEventListener(kind, event => { event.preventDefault(); $("drop").classList.remove("over"); });
addEventListener("drop", event => { if (!$("send").hidden) send(event.dataTransfer.files); });
addEventListener("keydown", event => {
  if (!player || $("play").disabled || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input:not([type=checkbox]), select, button, a")) return;
  const digit = Number(event.key), track = player.tracks[digit - 1];
  if (event.key === " ") player.playing ? player.pause() : player.play();
  else if (event.key === "ArrowLeft") player.seek(player.position - 5);
  else if (event.key === "ArrowRight") player.seek(player.position + 5);
  else if (track) player.set(track, {solo: !track.solo});
  else return;
  event.preventDefault();
});
begin().catch(error => { $("send").hidden = false; $("wrong").textContent = error.message; });
