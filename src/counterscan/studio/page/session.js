// The session: its images, its answers, the row of alternatives, and the way back.

import { viewOfImage, viewOfItem } from "./api.js";
import { $, attempt, capital, h, plural, select } from "./dom.js";
import { windowed } from "./maps.js";

const THUMB = 84;

/** A small canvas of a picture through a window. */
export function thumbnail(picture, window, side = THUMB) {
  const scale = side / Math.max(picture.width, picture.height);
  const canvas = h("canvas", { width: Math.round(picture.width * scale), height: Math.round(picture.height * scale) });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(windowed(picture, window), 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** The list of images and answers in `root`; `act` opens them. */
export function makeSession(root, state, act) {
  const images = h("div", { className: "thumbs", id: "images" });
  const answers = h("ol", { className: "history", id: "history" });
  const series = h("div", { className: "files", id: "all-series" });
  const box = h("section", { id: "session", hidden: true }, h("h3", {}, "Images of this session"), images, series, h("h3", {}, "Answers"), answers);
  root.append(box);

  function showAnswers() {
    const done = [...state.jobs.values()].filter((job) => job.result?.image && job.result.items.length);
    answers.replaceChildren(...done.reverse().map((job) => {
      const [item] = job.result.items;
      const here = state.current?.job === job.id;
      const many = job.result.items.length > 1 ? `, ${job.result.items.length} alternatives` : "";
      return h("li", {}, h("button", { type: "button", "aria-current": String(here), onclick: () => attempt(() => act.show(job.id, 0)) },
        h("b", {}, capital(item.asked)), h("span", { className: "dim small" }, `${item.method}, ${item.seconds.toFixed(1)} s${many}`)));
    }));
    if (!done.length) answers.append(h("li", { className: "dim small" }, "None yet."));
  }

  async function showImages() {
    box.hidden = !state.images.size && !state.series.size;
    series.replaceChildren(...[...state.series.values()].map((one) => h("button", { type: "button", onclick: () => act.pick(one) },
      `${one.name}: ${plural(one.instances.length, "image")}…`)));
    const made = [];
    for (const image of state.images.values()) {
      let small = state.thumbs.get(image.image);
      if (!small) {
        small = thumbnail(await viewOfImage(image), { level: 0.5, width: 1 }, 56);
        state.thumbs.set(image.image, small);
      }
      const mark = image.synthetic ? h("span", { className: "mark" }, "synthetic") : null;
      made.push(h("button", { type: "button", title: image.name, "aria-label": `Open ${image.name}`, "aria-current": String(state.image?.image === image.image),
        onclick: () => attempt(() => act.open(image)) }, small, mark));
    }
    images.replaceChildren(...made);
  }

  return { refresh: () => { showAnswers(); return showImages(); } };
}

/** What tells an answer from others of its method: its seed, and its strength where it is not the method's own. */
const way = (item) => [`seed ${item.seed}`, ...(item.strength && item.strength !== 1 ? [`strength ${Number(item.strength.toFixed(2))}`] : [])];

/** All answers to the question of the one that is shown, to choose among; `act.more` asks again in another way. */
export async function showAlternatives(state, viewer, about, act) {
  const row = $("alternatives");
  const current = state.current;
  row.hidden = !current;
  if (!current) return;
  const same = [];
  for (const job of state.jobs.values()) {
    if (job.result?.image !== state.image.image) continue;
    (job.result.items || []).forEach((item, index) => {
      if (job.kind === current.kind && item.asked === current.item.asked && item.target === current.item.target) same.push({ job: job.id, index, item });
    });
  }
  const buttons = [];
  for (const { job, index, item } of same) {
    const small = thumbnail(await viewOfItem(job, item), viewer.window);
    const here = job === current.job && index === current.index;
    buttons.push(h("button", { type: "button", "aria-current": String(here), "aria-label": `Alternative: ${[item.method, ...way(item)].join(", ")}`, onclick: () => attempt(() => act.show(job, index)) },
      small, h("span", {}, item.method), h("span", { className: "dim" }, [...way(item), "synthetic"].join(" · "))));
  }
  if (state.current !== current) return; // another answer was chosen meanwhile
  const methods = select([["", "Other method…"], ...about.methods], { "aria-label": "Ask the same with another method", onchange: () => attempt(() => act.more({ method: methods.value })) });
  const next = Math.max(...same.map(({ item }) => item.seed)) + 1;
  const strength = current.item.strength || 1;
  const at = (factor, label) => h("button", { type: "button", disabled: factor > about.limits.strength, onclick: () => attempt(() => act.more({ seed: current.item.seed, count: 1, strength: factor })) }, label);
  const more = current.kind === "edit"
    ? h("div", { className: "more-ways" }, at(strength / 1.5, "Weaker"), at(strength * 1.5, "Stronger"), h("button", { type: "button", onclick: () => attempt(() => act.more({ seed: next, count: 3 })) }, "3 more seeds"), methods)
    : null;
  row.replaceChildren(...buttons, ...(more ? [more] : []));
}
