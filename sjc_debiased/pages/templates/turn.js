"use strict";
// Turntables in step: one button and one slider for all videos of an element with data-turn.
function inStep(box) {
  const videos = [...box.querySelectorAll("video")];
  const button = box.querySelector("[data-play]"), slider = box.querySelector("[data-angle]");
  const said = box.querySelector("output");
  let set = 0;  // when others were last brought into step; more than once a second would stutter where it is slow
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const able = () => videos.filter(video => video.isConnected && video.duration > 0);
  for (const video of videos) {
    const fail = () => {
      if (!video.isConnected) return;
      const note = document.createElement("div");
      note.className = "cannot";
      note.textContent = "This turntable cannot be shown: the file is missing or damaged.";
      video.replaceWith(note);
    };
    video.addEventListener("error", fail);
    if (video.error) fail();
    video.addEventListener("loadedmetadata", () => { if (playing) start(); });
  }
  if (playing && able().length) start();  // what was loaded before this script
  function start() {
    const [first, ...others] = able();
    for (const other of others) other.currentTime = first.currentTime;
    for (const video of able()) video.play().catch(() => {});
  }
  function draw() {
    button.textContent = playing ? "Pause" : "Turn";
    const [first, ...others] = able();
    if (first) {
      const angle = Math.floor(first.currentTime / first.duration * 360) % 360;
      if (playing) {
        slider.value = angle;
        const off = Math.max(0, ...others.map(other => Math.abs(other.currentTime - first.currentTime)));
        if (off > .1 && off < first.duration / 2 && performance.now() - set > 1000) {
          set = performance.now();
          for (const other of others) other.currentTime = first.currentTime;
        }
      }
      said.textContent = slider.value + "°";
    }
    if (box.isConnected) requestAnimationFrame(draw);
  }
  button.onclick = () => {
    playing = !playing;
    if (playing) start(); else able().forEach(video => video.pause());
  };
  slider.oninput = () => {
    playing = false;
    for (const video of able()) { video.pause(); video.currentTime = slider.value / 360 * video.duration; }
  };
  draw();
}
document.querySelectorAll("[data-turn]").forEach(inStep);
