// The page's own part of the players (player.js): its buttons, pictures and clock.
(() => {
  const sections = [...document.querySelectorAll("[data-begins]")].filter(section => section.querySelector("audio"));
  if (!sections.length) return;
  const play = document.getElementById("play"), slider = document.getElementById("position");
  const time = document.getElementById("time"), heads = [...document.querySelectorAll(".head")];
  const player = window.player = new Player(sections.map(section => ({
    section, audio: section.querySelector("audio"), url: section.querySelector("audio").src,
    begins: Number(section.dataset.begins), gain: Number(section.dataset.gain), alone: section.id === "mixture",
  })), {seconds: Number(slider.max), rate: Number(slider.dataset.rate)});
  const clock = s => Math.floor(s / 60) + ":" + String(Math.floor(s % 60)).padStart(2, "0");
  const show = () => {
    const at = player.position;
    slider.value = at;
    slider.setAttribute("aria-valuetext", clock(at));
    time.textContent = clock(at) + " / " + clock(player.length);
    for (const head of heads) head.style.left = 100 * at / player.length + "%";
  };
  const reflect = () => {
    show();
    play.textContent = player.busy ? "Loading" : player.playing ? "Pause" : "Play";
    const solo = player.tracks.some(track => track.solo);
    for (const track of player.tracks) {
      track.section.classList.toggle("silent", !player.audible(track) && (solo || !track.alone));
      track.section.querySelector(".failed").hidden = !track.failed;
      for (const kind of ["mute", "solo"]) {
        track.section.querySelector("." + kind)?.setAttribute("aria-pressed", String(track[kind]));
      }
    }
  };
  const follow = () => { if (player.playing) { show(); requestAnimationFrame(follow); } };
  const toggle = () => { if (player.playing) player.pause(); else { player.play(); requestAnimationFrame(follow); } };
  for (const track of player.tracks) {
    track.audio.controls = false;
    track.audio.hidden = true;
    const failed = () => player.set(track, {failed: "can't be played"});
    track.audio.addEventListener("error", failed);
    if (track.audio.error) failed();
    for (const kind of ["mute", "solo"]) {
      const button = track.section.querySelector("." + kind);
      if (!button) continue;
      button.hidden = false;
      button.addEventListener("click", () => player.set(track, {[kind]: !track[kind]}));
    }
  }
  for (const area of document.querySelectorAll(".seek")) area.addEventListener("click", event => {
    const box = area.getBoundingClientRect();
    player.seek(player.length * (event.clientX - box.left) / box.width);
  });
  play.addEventListener("click", toggle);
  slider.addEventListener("change", () => player.seek(Number(slider.value)));
  slider.addEventListener("input", () => { if (!player.playing) player.seek(Number(slider.value)); });
  document.addEventListener("keydown", event => {
    if (event.key !== " " || event.target.closest("button, input, a, summary")) return;
    event.preventDefault();
    toggle();
  });
  player.addEventListener("change", reflect);
  document.getElementById("transport").hidden = false;
  for (const head of heads) head.hidden = false;
  document.body.classList.add("ready");
  reflect();
})();
