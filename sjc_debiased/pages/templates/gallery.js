"use strict";
const at = id => document.getElementById(id);
const cards = [...document.querySelectorAll(".card")];
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

function filter() {
  const words = at("prompt").value.toLowerCase().trim().split(/\s+/);
  let n = 0;
  for (const card of cards) {
    const fits = words.every(word => card.dataset.prompt.includes(word)) && ["preset", "model", "state"].every(
      name => !at(name).value || card.dataset[name] === at(name).value);
    card.hidden = !fits;
    n += fits;
  }
  const of = n === cards.length ? "" : n + " of ";
  at("count").textContent = of + cards.length + (cards.length === 1 ? " run" : " runs");
  at("none").hidden = n > 0;
}
for (const name of ["prompt", "preset", "model", "state"]) at(name).addEventListener("input", filter);
filter();

function video(card) {
  const made = document.createElement("video");
  Object.assign(made, { muted: true, loop: true, playsInline: true, preload: "auto", src: card.dataset.turntable });
  made.setAttribute("aria-label", card.dataset.label + ", turning");
  return made;
}

// Turning under the pointer; the video is fetched only then.
for (const card of cards) {
  const frame = card.querySelector(".frame");
  if (!card.dataset.turntable || still) continue;
  let made = null;
  frame.addEventListener("pointerenter", event => {
    if (event.pointerType !== "mouse" || made) return;
    made = video(card);
    made.autoplay = true;
    made.addEventListener("error", () => made && made.remove());
    frame.append(made);
  });
  frame.addEventListener("pointerleave", () => { if (made) made.remove(); made = null; });
}

// Side by side: what is chosen, turning in step.
function compare() {
  const chosen = cards.filter(card => card.querySelector("input").checked);
  const tray = at("tray");
  tray.replaceChildren();
  tray.hidden = at("clear").hidden = chosen.length === 0;
  if (!chosen.length) return;
  const box = at("turn").content.cloneNode(true).firstElementChild;
  for (const card of chosen) {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    if (card.dataset.turntable) figure.append(video(card));
    else figure.append(Object.assign(document.createElement("div"), { className: "cannot", textContent: "No turntable." }));
    caption.dir = "auto";
    caption.textContent = card.dataset.label;
    figure.append(caption);
    box.querySelector(".turn-row").append(figure);
  }
  tray.append(box);
  inStep(box);
}
for (const card of cards) card.querySelector("input").addEventListener("change", compare);
at("clear").onclick = () => { for (const card of cards) card.querySelector("input").checked = false; compare(); };
compare();
