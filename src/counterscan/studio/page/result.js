// The answer: ways of looking at it, where it differs and by how much, what it cost, and its files.

import { KINDS, fileAddress } from "./api.js";
import { $, capital, h, plural } from "./dom.js";
import { fullColour, glow, haze, regions, strength } from "./maps.js";
import { fillBox } from "./pointer.js";

const FLOOR = 0.02; // five grey levels of 256
const MOST = 12; // regions in the list
const MODES = [
  ["compare", "Compare"],
  ["side", "Side by side"],
  ["blink", "Blink"],
  ["difference", "Difference"],
  ["heat", "Heat map"],
  ["spread", "Uncertainty"],
];
const FILES = {
  edit: [...KINDS, ["report", "Report"], ["mask", "Mask"], ["difference", "Difference"], ["record", "Record"]],
  attribute: [["overlay", "Overlay"], ["map", "Map"], ["mask", "Mask"], ["segmentation", "DICOM-SEG"]],
};

/** What a judge says before and after of the findings that were asked about. */
function scores(all) {
  const told = Object.entries(all).map(([finding, [before, after]]) => `${finding} ${before.toFixed(2)} → ${after.toFixed(2)}`);
  return told.join("; ") || "knows none of these findings";
}

/** Show answers in `root` and the viewer; `act.goOn(answer)` makes one the image to go on from. */
export function makeResult(root, viewer, act) {
  let answer = null;
  let blinking = 0;
  let mode = "";

  const modes = h("div", { className: "segments wrap", role: "radiogroup", "aria-label": "Ways of looking" }, MODES.map(([name, label], k) =>
    h("label", { title: `Key ${k + 1}` }, h("input", { type: "radio", name: "mode", value: name, onchange: () => look(name) }), h("span", {}, label))));
  const limit = h("input", { type: "range", id: "threshold", min: 0.005, max: 0.3, step: 0.005, oninput: () => measure() });
  const limitText = h("output", { for: "threshold" });
  const list = h("ol", { className: "regions", id: "regions" });
  const title = h("h2", { id: "asked" });
  const facts = h("dl", { className: "facts" });
  const files = h("div", { className: "files", id: "files" });
  const verdict = h("p", { className: "small" });
  const goOn = h("button", { type: "button", className: "wide", onclick: () => act.goOn(answer) }, "Go on from this answer");
  const box = h("section", { id: "result", hidden: true }, title, h("p", { className: "warn small" }, "Synthetic. Not for diagnosis."), verdict,
    h("h3", {}, "Look"), modes,
    h("h3", {}, "Where it differs"), h("label", { className: "field" }, h("span", {}, "Threshold ", limitText), limit), list,
    h("h3", {}, "Download"), files, h("h3", {}, "How it was made"), facts, goOn);
  const waiting = h("p", { className: "dim small" }, "Here stand the answer, where it differs, and its files, once you have asked.");
  root.append(waiting, box);

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=radio]):not([type=range]), textarea, select, dialog");
    if (!answer || typing || event.ctrlKey || event.metaKey || event.altKey || $("edit").hidden) return;
    const input = modes.querySelectorAll("input")[Number(event.key) - 1];
    if (input && !input.disabled) look(input.value);
  });

  function show(next) {
    answer = next;
    box.hidden = false;
    waiting.hidden = true;
    const { item, kind } = answer;
    answer.scale = fullColour(answer.map);
    answer.strong = strength(answer.map);
    const share = item.changed === undefined ? "" : `${(100 * item.changed).toFixed(1)} %`;
    title.textContent = capital(item.asked || "answer");
    verdict.textContent = kind === "attribute"
      ? `The model sees ${item.present ? `${item.finding} in the marked regions` : `no ${item.finding} here`}. ${promised(item)}`
      : (item.changed ? `Outside the changed ${share} the two are equal bit for bit.` : "Nothing changed: the model sees nothing to do here.");
    const rows = { From: item.source, To: item.target, Method: item.method, Model: item.model, Seed: item.seed, Strength: item.strength !== 1 && item.strength?.toFixed(2),
      Changed: share && `${share} of the image`, [item.judge?.name]: item.judge && scores(item.judge.scores),
      Threshold: item.threshold && `${Math.round(item.threshold * 255)} of 255 grey levels`,
      Cost: `${item.evaluations} evaluations, ${item.seconds.toFixed(1)} s` };
    facts.replaceChildren(...Object.entries(rows).filter(([, value]) => value || value === 0).flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, String(value))]));
    files.replaceChildren(...FILES[kind].filter(([key]) => item.files[key]).map(([key, label]) => key === "report"
      ? h("a", { href: fileAddress(answer.job, item.files[key]), target: "_blank", rel: "noopener" }, label)
      : h("a", { href: fileAddress(answer.job, item.files[key], true), download: item.files[key] }, label)));
    goOn.hidden = kind === "attribute";
    limit.value = kind === "attribute" ? item.threshold : FLOOR;
    viewer.setAfter(answer.after || null);
    const able = { compare: answer.after, side: answer.after, blink: answer.after, spread: answer.spread };
    for (const input of modes.querySelectorAll("input")) input.disabled = input.value in able && !able[input.value];
    const usable = modes.querySelector(`[value="${mode}"]:not(:disabled)`);
    answer.haze = answer.spread && haze(answer.spread, Math.max(fullColour(answer.spread), 0.02));
    measure(usable ? mode : answer.after ? "compare" : "heat");
  }

  /** Find the regions above the threshold, and show them. */
  function measure(next = mode) {
    const threshold = Number(limit.value);
    const { image, map, strong, scale } = answer;
    limitText.textContent = `${Math.round(threshold * 255)} of 255 grey levels`;
    answer.regions = regions(map, strong, threshold);
    answer.heat = glow(map, scale, { strong, threshold, most: 0.75, least: 0.2 });
    const part = (image.width / map.width) * (image.height / map.height);
    list.replaceChildren(...answer.regions.slice(0, MOST).map((region) => {
      const pixels = region.area * part;
      const size = image.spacing_mm ? `${((pixels * image.spacing_mm[0] * image.spacing_mm[1]) / 100).toFixed(1)} cm²` : `${Math.round(pixels)} px`;
      return h("li", {}, h("span", {}, size, h("i", { className: region.sign > 0 ? "more" : "less" }, region.sign > 0 ? " denser" : " less dense")),
        h("button", { type: "button", className: "quiet", onclick: () => viewer.goTo(region.box) }, "Show"),
        h("button", { type: "button", className: "quiet", title: "Only this box may change in the next answer", onclick: () => fillBox(viewer, region.box) }, "Limit to"));
    }));
    const more = answer.regions.length - MOST;
    if (more > 0) list.append(h("li", { className: "dim" }, `and ${plural(more, "smaller one")}`));
    if (!answer.regions.length) list.append(h("li", { className: "dim" }, "No region is above the threshold."));
    look(next);
  }

  function look(next) {
    mode = next;
    clearInterval(blinking);
    modes.querySelector(`[value="${mode}"]`).checked = true;
    const boxes = mode === "heat" ? answer.regions.slice(0, MOST).map((region) => region.box) : [];
    const fitted = viewer.fitted;
    $("slide").hidden = mode !== "compare";
    const grey = Math.round(answer.scale * 255);
    const key = `Full colour at ±${grey} grey levels: orange denser, blue less dense`;
    if (mode === "difference") viewer.set({ mode: "map", map: glow(answer.map, answer.scale), boxes });
    else if (mode === "heat") viewer.set({ mode: "over", map: answer.heat, boxes });
    else if (mode === "spread") viewer.set({ mode: "over", map: answer.haze, boxes });
    else viewer.set({ mode: mode === "blink" ? "after" : mode, map: null, boxes });
    if (fitted) viewer.fit();
    const original = answer.image.synthetic ? "Original (synthetic)" : "Original";
    const tags = { difference: [key, "Synthetic"], heat: [key, "Synthetic"], spread: ["Violet: where repeats disagree", "Synthetic"], blink: ["", "Answer, synthetic"] };
    label(...(tags[mode] || [original, "Answer, synthetic"]));
    if (mode === "blink") {
      blinking = setInterval(() => {
        const after = viewer.mode === "before";
        viewer.set({ mode: after ? "after" : "before" });
        label(after ? "" : original, after ? "Answer, synthetic" : "");
      }, 700);
    }
  }

  return {
    show,
    clear(image) {
      answer = null;
      clearInterval(blinking);
      box.hidden = true;
      waiting.hidden = false;
      $("slide").hidden = true;
      label(image.synthetic ? "" : "Original", image.synthetic ? "Synthetic" : "");
    },
  };
}

/** How often this answer is wrong about images without the finding, where that is known. */
function promised({ rate, finding }) {
  if (!rate) return "How often it errs so is not known: no calibration holds for this method and number of repeats.";
  return `Of images without ${finding}, ${+(100 * rate).toPrecision(3)} % are taken for ones with it.`;
}

function label(left, right) {
  for (const [id, text] of [["tag-left", left], ["tag-right", right]]) {
    $(id).textContent = text;
    $(id).hidden = !text;
  }
}
