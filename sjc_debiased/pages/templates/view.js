"use strict";
const page = JSON.parse(document.getElementById("page").textContent);
const at = id => document.getElementById(id);
let touched = false;
for (const kind of ["pointerdown", "keydown", "input"]) addEventListener(kind, () => { touched = true; }, true);

// A run that was killed cannot say so: the page does, once it has been silent for long.
function silence() {
  if (!page.running) return;
  const silent = Date.now() / 1000 - page.last_sign;
  if (silent > page.silent_after_s) {
    at("state").className = "state stopped";
    at("state").textContent = "stopped";
    at("why").textContent = "It has not written anything for long, and did not say how it ended.";
  } else if (!touched) location.reload();
}
if (page.running) {
  if (Date.now() / 1000 - page.last_sign > page.silent_after_s) silence();
  else setInterval(silence, 60000);
}

// The slider over time: pictures, and the marks in the curves.
const time = at("time");
function value(chart, line, bin) {
  const found = page.charts[chart].lines[line][bin];
  if (found === null || found === undefined) return "–";
  return page.charts[chart].percent ? (found * 100).toFixed(1) + " %" : Number(found.toPrecision(3)).toString();
}
function show(index) {
  const moment = page.moments[index];
  if (!moment) return;
  at("moment").textContent = "step " + moment.step.toLocaleString("en") + " of " + page.n_steps.toLocaleString("en");
  if (moment.views && at("views")) {
    for (const image of at("views").querySelectorAll("img")) if (image.dataset.at !== moment.views) {
      image.src = image.dataset.at = moment.views;
    }
    at("views-step").textContent = "after step " + moment.views_step.toLocaleString("en");
  }
  if (at("views")) at("views").hidden = !moment.views;
  at("preview").src = moment.preview;
  at("camera").textContent = moment.camera;
  let bin = page.bins.findIndex(start => start > moment.step - 1);
  bin = (bin < 0 ? page.bins.length : bin) - 1;
  const x = page.width * (moment.step - 1) / Math.max(1, page.n_steps - 1);
  for (const mark of document.querySelectorAll(".mark")) { mark.setAttribute("x1", x); mark.setAttribute("x2", x); }
  for (const said of document.querySelectorAll("[data-value]")) {
    const [chart, line] = said.dataset.value.split(",").map(Number);
    said.textContent = value(chart, line, bin);
  }
}
if (time) {
  let timer = 0;
  const button = at("watch");
  const stop = () => { clearInterval(timer); timer = 0; button.textContent = "Watch"; };
  time.oninput = () => { stop(); show(Number(time.value)); };
  button.onclick = () => {
    if (timer) return stop();
    if (Number(time.value) >= page.moments.length - 1) time.value = 0;
    button.textContent = "Pause";
    timer = setInterval(() => {
      time.value = Number(time.value) + 1;
      show(Number(time.value));
      if (Number(time.value) >= page.moments.length - 1) stop();
    }, 110);
  };
  show(page.moments.length - 1);
}
document.querySelectorAll("img").forEach(image => {
  const mark = () => image.classList.toggle("broken", image.complete && image.naturalWidth === 0);
  image.addEventListener("error", mark);
  image.addEventListener("load", mark);
});

const viewer = document.querySelector("model-viewer");
if (viewer && globalThis.MESH) viewer.src = globalThis.MESH;
else if (viewer) viewer.replaceWith(Object.assign(document.createElement("div"), {
  className: "cannot", textContent: "The mesh cannot be shown: " + "viewer/mesh.js is missing. The file of the mesh is beside this page.",
}));

const copy = at("copy");
if (copy) copy.onclick = () => {
  getSelection().selectAllChildren(at("command"));  // what a keyboard copies, where a page may not
  copy.textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
};
