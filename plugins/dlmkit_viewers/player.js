"use strict";
const film = JSON.parse(document.getElementById("film").textContent);
const byId = (id) => document.getElementById(id);
const slider = byId("step"), play = byId("play"), text = byId("text");
const last = film.tokens.length;
let timer = null, hovered = null;

const spans = film.given.map((given, place) => {
  const span = document.createElement("span");
  span.tabIndex = -1;
  span.onmouseenter = () => { hovered = place; values(); };
  text.append(span);
  return span;
});

function number(value) {
  return value === null ? "none" : String(Number(value.toFixed(5)));
}

function show() {
  const step = slider.value - 1, now = film.tokens[step];
  const before = step > 0 ? film.tokens[step - 1] : now;
  let changes = 0;
  spans.forEach((span, place) => {
    const value = film.positions[film.by][step][place], changed = now[place] !== before[place];
    const plain = film.given[place] || value === null;
    const share = Math.min(Math.max(value / film.most, 0), 1);
    const colour = Math.round(share * (film.paper.length - 1));
    span.textContent = film.words[now[place]];
    span.style.background = plain ? "none" : film.paper[colour];
    span.style.color = plain ? "inherit" : film.ink[colour];
    span.classList.toggle("given", film.given[place]);
    span.classList.toggle("changed", changed);
    changes += changed;
  });
  const words = [`step ${step + 1} of ${last}`, `sigma ${number(film.sigma[step])}`];
  if (film.by in film.statistics) {
    words.push(`${film.by} ${number(film.statistics[film.by][step])}`);
  }
  byId("facts").textContent = `${words.join(", ")}, ${changes} changed`;
  film.marks.forEach((mark, place) => {
    const passed = mark.step !== null && step + 1 >= mark.step;
    byId("marks").children[place].textContent = `${passed ? "\u25a0" : "\u25a1"} ${mark.words}`;
  });
  values();
}

function values() {
  if (hovered === null) { return; }
  spans.forEach((span, place) => span.classList.toggle("here", place === hovered));
  const step = slider.value - 1, token = film.words[film.tokens[step][hovered]];
  const words = Object.entries(film.positions).map(
    ([name, kept]) => `${name} ${number(kept[step][hovered])}`);
  const facts = film.given[hovered] ? ["given"] : words;
  byId("hover").textContent = [`position ${hovered + 1}: \u201c${token}\u201d`, ...facts].join(", ");
}

function go(step) {
  slider.value = Math.min(Math.max(step, 1), last);
  show();
}

function pause() {
  clearInterval(timer);
  timer = null;
  play.textContent = "Play";
}

function toggle() {
  if (timer !== null) { pause(); return; }
  if (Number(slider.value) === last) { go(1); }
  play.textContent = "Pause";
  timer = setInterval(() => {
    go(Number(slider.value) + 1);
    if (Number(slider.value) === last) { pause(); }
  }, 1000 / film.speed);
}

film.marks.forEach((mark) => {
  const word = document.createElement(mark.step === null ? "span" : "button");
  byId("marks").append(word);
  if (mark.step === null) { return; }
  word.type = "button";
  word.onclick = () => { pause(); go(mark.step); };
  // the slider's knob stays inside its ends, by half of its width of about 16 pixels
  const share = last > 1 ? (mark.step - 1) / (last - 1) : 0, tick = document.createElement("i");
  tick.style.left = `calc(8px + ${share} * (100% - 16px) - 1px)`;
  tick.title = mark.words;
  byId("track").append(tick);
});

play.onclick = toggle;
slider.oninput = () => { pause(); show(); };
document.onkeydown = (event) => {
  if (event.target.tagName === "BUTTON" && event.key === " ") { return; }
  const moves = { ArrowLeft: -1, ArrowRight: 1 };
  if (event.key === " ") {
    toggle();
  } else if (event.key in moves && event.target !== slider) {
    pause();
    go(Number(slider.value) + moves[event.key]);
  } else {
    return;
  }
  event.preventDefault();
};
show();
