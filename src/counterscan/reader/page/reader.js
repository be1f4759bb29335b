// A reader study: show a trial, take the answer, show the next. Nothing here knows which image is synthetic.

import { $, attempt, h, say } from "./dom.js";
import { Viewer } from "./viewer.js";

const QUESTIONS = {
  rating: "Is this image real or synthetic?",
  "forced-choice": "One of these is synthetic. Which?",
  change: "What differs between the two, and where? Click there or draw a box, on either image.",
  quality: "Left the original, right the result (synthetic). Asked was:",
};
const AGREE = ["strongly disagree", "disagree", "neither", "agree", "strongly agree"];
const POINT = 4; // pixels of a drag that is still a click
const state = { study: null, reader: "", trial: null, viewers: [], began: 0, mark: null, keys: {} };

async function ask(path, value) {
  const options = value && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) };
  let answer;
  try {
    answer = await fetch(`api/${path}`, options);
  } catch {
    throw new Error("the study does not answer; is it still running? Nothing that was answered is lost.");
  }
  if (answer.ok) return answer;
  const { detail } = await answer.json().catch(() => ({ detail: `the study answered ${answer.status}` }));
  throw new Error(Array.isArray(detail) ? detail.map((fault) => fault.msg).join("; ") : detail);
}

const json = async (path, value) => (await ask(path, value)).json();

async function begin(code) {
  const next = await json("readers", { code });
  sessionStorage.setItem("reader", code);
  state.reader = code;
  $("who").textContent = code;
  $("begin").hidden = true;
  await show(next);
}

/** Show the next trial, or the end. */
async function show({ trial, done, total }) {
  $("progress").value = total ? done / total : 1;
  $("count").textContent = `${done} of ${total}`;
  $("read").hidden = !trial;
  $("end").hidden = Boolean(trial);
  Object.assign(state, { trial: null, mark: null, keys: {} });
  $("answer").replaceChildren(); // nobody answers what is not shown yet
  if (!trial) return;
  const pictures = await Promise.all(trial.views.map(async (view, k) => {
    const answer = await ask(`readers/${state.reader}/trials/${trial.place}/pictures/${k}`);
    return { ...view, data: new Uint16Array(await answer.arrayBuffer()) };
  }));
  $("question").textContent = trial.kind === "quality" ? `${QUESTIONS.quality} ${trial.asked}` : QUESTIONS[trial.kind];
  const canvases = pictures.map((_, k) => h("canvas", { tabIndex: 0, role: "img", "aria-label": pictures.length > 1 ? `${["Left", "Right"][k]} image` : "Image" }));
  $("views").replaceChildren(...canvases.map((canvas) => h("figure", {}, canvas)));
  $("hint").textContent = `${trial.kind === "change" ? "Middle drag or arrows move" : "Drag moves"}, wheel zooms, right drag windows`;
  state.viewers = canvases.map((canvas) => new Viewer(canvas));
  state.viewers.forEach((viewer, k) => {
    viewer.setBefore(pictures[k]);
    viewer.changed = () => together(viewer);
    if (trial.kind === "change") listenForMark(viewer);
  });
  $("answer").replaceChildren(...FORMS[trial.kind](trial));
  state.trial = trial;
  state.began = performance.now();
  document.body.dataset.trial = trial.place;
}

/** Both images move, zoom and window as one. */
function together(viewer) {
  for (const other of state.viewers) {
    if (other === viewer) continue;
    Object.assign(other, { window: { ...viewer.window } });
    const same = other.before.width === viewer.before.width && other.before.height === viewer.before.height;
    if (same) Object.assign(other, { at: { ...viewer.at }, fitted: viewer.fitted });
    other.draw();
  }
}

/** A click or a box marks the place, on both images. */
function listenForMark(viewer) {
  viewer.tool = "box";
  viewer.canvas.dataset.tool = "box";
  viewer.boxed = ([x0, y0, x1, y1]) => {
    const { width, height } = viewer.before;
    const part = (value, whole) => Math.max(0, Math.min(1, value / whole));
    const click = Math.hypot(x1 - x0, y1 - y0) * viewer.at.scale < POINT;
    const [a, b] = click ? [[x0, y0], [x0, y0]] : [[Math.min(x0, x1), Math.min(y0, y1)], [Math.max(x0, x1), Math.max(y0, y1)]];
    state.mark = [part(a[0], width), part(a[1], height), part(b[0], width), part(b[1], height)];
    const reach = click ? width / 60 : 0;
    for (const one of state.viewers) one.set({ boxes: [[a[0] - reach, a[1] - reach, b[0] + reach, b[1] + reach]] });
    state.ready();
  };
}

const send = (answer) => attempt(async () => {
  const { trial } = state;
  if (!trial) return;
  state.trial = null; // so that a second key does not answer the next one
  try {
    await show(await json(`readers/${state.reader}/trials/${trial.place}`, { ...answer, seconds: (performance.now() - state.began) / 1000 }));
  } catch (error) {
    state.trial = trial;
    throw error;
  }
});

const button = (key, label, act) => {
  state.keys[key] = act;
  const shown = { ArrowLeft: "←", ArrowRight: "→" }[key] || key;
  return h("button", { type: "button", onclick: act }, h("kbd", {}, shown), label);
};

const FORMS = {
  rating: () => state.study.ratings.map((words, k) => button(String(k + 1), words, () => send({ rating: k + 1 }))),
  "forced-choice": () => ["Left is synthetic", "Right is synthetic"].map((words, k) => button(["ArrowLeft", "ArrowRight"][k], words, () => send({ choice: k }))),
  change: changeForm,
  quality: qualityForm,
};

function changeForm({ choices }) {
  let finding = null;
  const next = h("button", { type: "button", className: "primary", disabled: true, onclick: () => send(none() ? { finding } : { finding, mark: state.mark }) }, "Next");
  const none = () => finding === choices.at(-1);
  const buttons = choices.map((name) => h("button", { type: "button", "aria-pressed": "false", onclick: () => {
    finding = name;
    for (const one of buttons) one.setAttribute("aria-pressed", String(one.textContent === name));
    state.ready();
  } }, name));
  state.ready = () => {
    next.disabled = !(finding && (none() || state.mark));
  };
  return [h("div", { className: "choices", role: "group", "aria-label": "What differs" }, buttons), next];
}

function qualityForm({ scales }) {
  const said = {};
  const next = h("button", { type: "button", className: "primary", disabled: true, onclick: () => send({ scales: said }) }, "Next");
  const sets = Object.entries(scales).map(([name, sentence]) => h("fieldset", { className: "scale" }, h("legend", {}, sentence),
    h("div", { className: "segments" }, AGREE.map((words, k) => h("label", { title: words }, h("input", { type: "radio", name, "aria-label": words, onchange: () => {
      said[name] = k + 1;
      next.disabled = Object.keys(said).length < Object.keys(scales).length;
    } }), h("span", {}, String(k + 1)))))));
  return [...sets, h("span", { className: "dim small" }, "1 strongly disagree, 5 strongly agree"), next];
}

function listenToPage() {
  $("begin-form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => begin($("code").value.trim()));
  });
  $("answer").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    const inside = event.target.closest("input, canvas") && event.key.startsWith("Arrow");
    if (!state.trial || inside || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    state.keys[event.key]?.();
  });
  $("fit").addEventListener("click", () => state.viewers[0]?.fit());
  $("auto").addEventListener("click", () => state.viewers[0]?.autoWindow());
  $("invert").addEventListener("click", () => state.viewers[0]?.setWindow({ invert: !state.viewers[0].window.invert }));
}

async function start() {
  state.study = await json("study");
  document.title = state.study.title;
  for (const id of ["title", "begin-title"]) $(id).textContent = state.study.title;
  listenToPage();
  const code = sessionStorage.getItem("reader");
  if (code) await attempt(() => begin(code));
  else $("code").focus();
  document.body.dataset.ready = "yes";
}

attempt(start).catch((error) => say(error.message, "bad"));
