// The studio: joins the question, the viewer, the answer and the session.

import { get, post, remove, upload, viewOfImage, viewOfItem } from "./api.js";
import { makeAsk } from "./ask.js";
import { showBench } from "./bench.js";
import { showData } from "./data.js";
import { $, attempt, capital, h, plural, say } from "./dom.js";
import { makeGenerate } from "./generate.js";
import { track } from "./jobs.js";
import { difference, plain, signed, spread } from "./maps.js";
import { makeResult } from "./result.js";
import * as series from "./series.js";
import { makeSession, showAlternatives } from "./session.js";
import { makeTools } from "./tools.js";
import { Viewer } from "./viewer.js";

const state = { image: null, current: null, images: new Map(), series: new Map(), jobs: new Map(), thumbs: new Map(), trail: [] };
const viewer = new Viewer($("canvas"));
let about;
let ask;
let result;
let session;

const act = {
  undo: () => attempt(undo),
  open,
  show,
  goOn: (answer) => attempt(() => goOn(answer)),
  more: (changes) => submit(changes),
  ask: () => attempt(() => submit({})),
  upload: (files) => attempt(() => add(files)),
  take: (image) => attempt(() => taken(image)),
  pick: (one) => series.choose(one, act),
};

/** Show an image of the session, alone. */
async function open(image, remember = true) {
  const before = await viewOfImage(image);
  if (remember) mark();
  state.image = image;
  state.current = null;
  $("empty").hidden = true;
  viewer.setBefore(before);
  $("canvas").setAttribute("aria-label", `${image.synthetic ? "Synthetic image" : "Image"} ${image.name}`);
  ask.setImage(image);
  result.clear(image);
  await refresh();
}

/** Show an answer beside its image. */
async function show(id, index, remember = true) {
  const job = state.jobs.get(id);
  const item = job.result.items[index];
  const image = state.images.get(job.result.image);
  if (!image) throw new Error("the image of this answer was closed");
  const [before, view] = await Promise.all([viewOfImage(image), viewOfItem(id, item)]);
  if (remember) mark();
  const answer = { job: id, index, item, image, kind: job.kind };
  if (job.kind === "attribute") {
    answer.map = signed(view);
    if (item.repeats > 1) answer.spread = plain(await viewOfItem(id, item, "spread"));
  } else {
    answer.after = view;
    answer.map = difference(before, view);
    answer.spread = await disagreement(job, before);
  }
  if (state.image !== image || !viewer.before) viewer.setBefore(before);
  state.image = image;
  state.current = answer;
  $("empty").hidden = true;
  $("canvas").setAttribute("aria-label", `${image.name} and the synthetic answer to: ${item.asked}`);
  ask.setImage(image);
  result.show(answer);
  await refresh();
}

/** How much the alternatives of one question differ, where there are several. */
async function disagreement(job, before) {
  if (job.result.items.length < 2) return null;
  const views = await Promise.all(job.result.items.map((item) => viewOfItem(job.id, item)));
  return spread(views.map((view) => difference(before, view)));
}

async function refresh() {
  $("undo").disabled = !state.trail.length;
  await Promise.all([session.refresh(), showAlternatives(state, viewer, about, act)]);
}

/** Note what is shown now, to come back to. */
function mark() {
  if (state.image) state.trail.push({ image: state.image, current: state.current });
  if (state.trail.length > 100) state.trail.shift();
}

async function undo() {
  const last = state.trail.pop();
  if (!last) return;
  if (last.current) await show(last.current.job, last.current.index, false);
  else await open(last.image, false);
}

async function add(files) {
  const parts = await series.sorted(files);
  for (const file of parts.others) {
    say(`Reading ${file.name}…`);
    await taken(await upload(file));
  }
  for (const some of [...parts.zips.map((file) => [file]), parts.series]) if (some.length) await addSeries(some);
}

/** A series is looked through first: one of its images is chosen. */
async function addSeries(files) {
  say(files.length === 1 ? `Reading ${files[0].name}…` : `Reading ${files.length} files…`);
  const one = await series.send(files, about);
  state.series.set(one.series, one);
  await session.refresh();
  if (one.instances.length === 1) await taken(await post(`series/${one.series}/0/image`));
  else act.pick(one);
}

async function taken(image) {
  state.images.set(image.image, image);
  choose("edit");
  await open(image);
  say(`${image.name} is open`);
}

async function goOn(answer) {
  await taken(await post(`jobs/${answer.job}/items/${answer.index}/image`));
}

/** Queue what the form says, changed in some ways, and show the answer when it is there. */
async function submit(changes) {
  if (!state.image) throw new Error("open an image first");
  const image = state.image;
  const { path, body } = ask.request(image, changes);
  const { job } = await post(path, body);
  const asked = body.finding ? `where is ${body.finding}` : body.instruct || [...(body.remove || []).map((w) => `remove ${w}`), ...(body.add || []).map((w) => `add ${w}`)].join(", ") || body.target;
  await finish(await track($("jobs"), job, `${capital(asked)} (${body.method || ask.method()})`), image);
}

async function finish(job, image) {
  state.jobs.set(job.id, job);
  if (job.state === "done") {
    for (const item of job.result.items) item.repeats = job.result.repeats;
    if (state.image === image) await show(job.id, 0);
    else await refresh();
    say(`${capital(job.result.items[0].asked)}: ${plural(job.result.items.length, "answer")}`);
  } else if (job.state === "failed") say(job.error, "bad");
  else if (job.state === "cancelled") say("Cancelled");
}

const tabs = [...document.querySelectorAll("[role=tab]")];
const loaders = { data: () => showData($("data"), about, act), bench: () => showBench($("bench")) };

function choose(name) {
  for (const tab of tabs) {
    const chosen = tab.getAttribute("aria-controls") === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (loaders[name]) attempt(loaders[name]);
  if (name === "edit") viewer.resize();
}

function listenToPage() {
  for (const [k, tab] of tabs.entries()) {
    tab.addEventListener("click", () => choose(tab.getAttribute("aria-controls")));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(k + step + tabs.length) % tabs.length];
      next.focus();
      next.click();
    });
  }
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("frame").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("frame").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("frame").classList.remove("over");
    if (event.dataTransfer.files.length) attempt(async () => act.upload(await series.dropped(event.dataTransfer)));
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=radio]):not([type=range]), textarea");
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && !typing) {
      event.preventDefault();
      act.undo();
    }
  });
  document.addEventListener("session-lost", () => $("lost").showModal());
  $("lost").addEventListener("close", () => location.reload());
  $("end").addEventListener("click", () => attempt(async () => {
    await remove("session");
    location.reload();
  }));
}

/** What a visitor without an image sees: where to drop one, and examples to try. */
async function showEmpty() {
  const { examples, credit } = await get("examples");
  const tries = examples.map((example, k) => {
    const [[direction, finding]] = Object.entries(example.edit);
    return h("button", { type: "button", className: "example", onclick: () => attempt(async () => {
      await taken(await post(`examples/${k}/image`));
      ask.choose(finding, direction);
    }) }, h("img", { src: `api/examples/${k}/thumbnail`, alt: "", loading: "lazy" }), h("b", {}, `${capital(direction)} ${finding}?`), h("span", { className: "dim" }, example.shows));
  });
  $("empty").replaceChildren(
    h("div", { className: "drop" }, h("b", {}, "Drop an image here"), h("span", { className: "dim" }, "PNG, JPEG or DICOM; of a DICOM series all files at once, their folder, or a zip. It stays on this server, in your session, until you end it."),
      h("button", { type: "button", className: "primary", onclick: () => ask.file.click() }, "Open an image…")),
    h("p", { className: "dim" }, "or try a radiograph that comes with the studio"), h("div", { className: "examples" }, tries), h("p", { className: "credit dim" }, credit));
}

async function start() {
  about = await get("about");
  ask = makeAsk($("ask"), about, viewer, act);
  makeTools($("tools"), viewer, act);
  result = makeResult($("answer"), viewer, act);
  session = makeSession($("answer"), state, act);
  makeGenerate($("generate"), about, act);
  listenToPage();
  const [{ images }, { jobs }, { series: known }] = await Promise.all([get("images"), get("jobs"), get("series")]);
  for (const one of known) state.series.set(one.series, one);
  for (const image of images) state.images.set(image.image, image);
  for (const job of jobs) {
    for (const item of job.result?.items || []) item.repeats = job.result.repeats;
    state.jobs.set(job.id, job);
  }
  if (images.length) await open(images.at(-1), false);
  else {
    await showEmpty();
    await session.refresh();
  }
  for (const job of jobs.filter((j) => (j.state === "queued" || j.state === "running") && (j.kind === "edit" || j.kind === "attribute"))) {
    attempt(async () => finish(await track($("jobs"), job.id, capital(job.kind)), state.image));
  }
  document.body.dataset.ready = "yes";
}

attempt(start);
