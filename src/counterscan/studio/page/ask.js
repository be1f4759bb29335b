// The question: which findings, or which words, where, and with what.

import { $, capital, h, select } from "./dom.js";
import { packed } from "./maps.js";

const KINDS = [
  ["findings", "Findings"],
  ["instruct", "Instruction"],
  ["prompts", "Prompts"],
  ["find", "Find"],
];
const SEEDS = 2 ** 32 - 20;

export const words = (change) => [change.severity, change.side, change.place, change.finding].filter(Boolean).join(" ");
const field = (label, control, ...more) => h("label", { className: "field" }, h("span", {}, label), control, ...more);

/** Build the form; `act.ask()`, `act.upload(files)` and `act.example(number)` are called by it. */
export function makeAsk(root, about, viewer, act) {
  const state = { kind: "findings", changes: [] };
  const modelOf = () => about.models.find((model) => model.name === models.value) || about.models[0];

  const file = h("input", {
    type: "file", id: "file", className: "away", multiple: true,
    accept: ".png,.jpg,.jpeg,.dcm,.dicom,.nii,.gz,.zip,image/png,image/jpeg,application/dicom,application/zip",
    onchange: () => act.upload([...file.files]).then(() => (file.value = "")),
  });
  const imageFacts = h("p", { className: "dim small", id: "image-facts" }, "PNG, JPEG, DICOM or a DICOM series. Drop it anywhere.");
  const kinds = h(
    "div", { className: "segments", role: "radiogroup", "aria-label": "How to ask" },
    KINDS.map(([kind, label]) =>
      h("label", {}, h("input", { type: "radio", name: "kind", value: kind, checked: kind === "findings",
        onchange: () => { state.kind = kind; showKind(); } }), h("span", {}, label))),
  );

  const chosen = h("div", { className: "changes", id: "changes", "aria-live": "polite" });
  const filter = h("input", { type: "search", id: "filter", placeholder: "Filter findings", "aria-label": "Filter findings", oninput: () => showFindings() });
  const list = h("ul", { className: "findings", id: "findings" });
  const instruct = h("textarea", { id: "instruct", rows: 3, placeholder: "add a small left pleural effusion" });
  const source = h("textarea", { id: "source", rows: 2 });
  const target = h("textarea", { id: "target", rows: 2 });
  const wanted = h("select", { id: "wanted" });
  const repeats = select(["1", "2", "3", "5"], { id: "repeats", value: "1" });
  const parts = {
    findings: h("div", { className: "part" }, chosen, filter, list),
    instruct: h("div", { className: "part" }, field("In plain English", instruct)),
    prompts: h("div", { className: "part" }, field("The image as it is", source), field("As it should become", target)),
    find: h("div", { className: "part" }, field("Where is", wanted), field("Repeats, to see how sure the answer is", repeats)),
  };

  const region = select([["", "Anywhere"], ...Object.keys(about.regions).map((name) => [name, capital(name)])], {
    id: "region", onchange: () => viewer.set({ outline: region.value ? about.regions[region.value] : null }),
  });
  const drawn = h("p", { className: "dim small", id: "drawn" }, "Or draw on the image with Brush or Box.");

  const models = select(about.models.map((model) => [model.name, model.label]), { id: "model", onchange: () => showModel() });
  const method = h("select", { id: "method" });
  const seed = h("input", { type: "number", id: "seed", min: 0, max: SEEDS, value: 0 });
  const count = select(["1", "2", "3", "4", "6"], { id: "count", value: "1" });
  const judge = select([["", "Nobody"], ...about.classifiers], { id: "judge" });

  function showKind() {
    for (const [kind, part] of Object.entries(parts)) part.hidden = kind !== state.kind;
    $("where").hidden = state.kind === "find";
    for (const control of [count, judge]) control.closest("label").hidden = state.kind === "find";
  }

  function showModel() {
    const model = modelOf();
    method.replaceChildren(h("option", { value: "" }, `${model.method} (the model's own)`), ...about.methods.map((name) => h("option", { value: name }, name)));
    wanted.replaceChildren(...Object.keys(model.findings).map((name) => h("option", { value: name }, name)));
    source.placeholder = `${model.template} with …`;
    target.placeholder = `${model.template} without …`;
    state.changes = state.changes.filter((change) => change.finding in model.findings);
    showChanges();
    showFindings();
  }

  function showFindings() {
    const looked = filter.value.trim().toLowerCase();
    const names = Object.keys(modelOf().findings).sort().filter((name) => name.includes(looked));
    const button = (name, direction, sign) => h("button", {
      type: "button", className: `pick ${direction}`, "aria-label": `${capital(direction)} ${name}`,
      "aria-pressed": String(state.changes.some((c) => c.finding === name && c.direction === direction)),
      onclick: () => { toggle(name, direction); root.querySelector(`[aria-label="${capital(direction)} ${name}"]`)?.focus(); },
    }, sign);
    list.replaceChildren(...names.map((name) => h("li", {}, h("span", {}, name), button(name, "remove", "−"), button(name, "add", "+"))));
    if (!names.length) list.append(h("li", { className: "dim" }, "This model knows no such finding. Try an instruction."));
  }

  function toggle(finding, direction) {
    const same = state.changes.find((change) => change.finding === finding);
    state.changes = state.changes.filter((change) => change !== same);
    if (!same || same.direction !== direction) state.changes.push({ finding, direction, side: "", place: "", severity: "" });
    showChanges();
    showFindings();
  }

  function showChanges() {
    const admits = modelOf().findings;
    const choice = (change, key, options, none) => options?.length
      ? select([["", none], ...options], { value: change[key], "aria-label": `${none}: ${change.finding}`, onchange: (event) => (change[key] = event.target.value) })
      : null;
    chosen.replaceChildren(...state.changes.map((change) => {
      const able = admits[change.finding] || {};
      return h("div", { className: `change ${change.direction}` },
        h("b", {}, `${capital(change.direction)} ${change.finding}`),
        h("button", { type: "button", className: "quiet", "aria-label": `Forget ${change.finding}`, onclick: () => toggle(change.finding, change.direction) }, "×"),
        h("div", { className: "row" }, choice(change, "severity", able.severities, "any size"),
          choice(change, "side", able.sides ? ["left", "right"] : [], "any side"), choice(change, "place", able.places, "any zone")));
    }));
    if (!state.changes.length) chosen.append(h("p", { className: "dim small" }, "Choose − to remove a finding, + to add one."));
  }

  root.append(
    h("h2", {}, "Image"),
    h("div", { className: "row" },
      h("button", { type: "button", className: "wide", onclick: () => file.click() }, "Open an image…"), file), imageFacts,
    h("h2", {}, "Question"), kinds, ...Object.values(parts),
    h("div", { id: "where" }, h("h2", {}, "Where it may change"),
      h("div", { className: "row" }, region, h("button", { type: "button", id: "clear-region", title: "Forget the drawn and the named region", onclick: () => clearRegion() }, "Clear")), drawn),
    h("details", {}, h("summary", {}, "Model, method, seeds"),
      field("Model", models), field("Method", method),
      h("div", { className: "row two" }, field("Seed", seed), field("Alternatives", count)),
      field("Scored by", judge)),
    h("div", { className: "foot" },
      h("button", { type: "submit", className: "primary wide", id: "submit", disabled: true }, "Ask"),
      h("div", { id: "jobs", className: "jobs", "aria-live": "polite" })),
  );
  root.addEventListener("submit", (event) => { event.preventDefault(); act.ask(); });
  root.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) act.ask(); });
  showModel();
  showKind();

  function clearRegion() {
    region.value = "";
    if (viewer.drawn) viewer.drawn.getContext("2d").clearRect(0, 0, viewer.drawn.width, viewer.drawn.height);
    viewer.set({ outline: null });
  }

  /** What the form says, as the API takes it: {path, body}. Throws when something is missing. */
  function request(image, changes = {}) {
    const base = { image: image.image, model: models.value, method: method.value || null, seed: Number(seed.value) || 0, ...changes };
    if (state.kind === "find") {
      const { count: _, strength: __, ...rest } = base;
      return { path: "attribute", body: { ...rest, finding: wanted.value, repeats: Number(repeats.value) } };
    }
    const body = { ...base, count: changes.count || Number(count.value), judge: judge.value || null, region: region.value || null, mask: viewer.drawn ? packed(viewer.drawn) : null };
    if (state.kind === "instruct") body.instruct = required(instruct, "write an instruction first, such as: remove the pacemaker");
    else if (state.kind === "prompts") {
      body.source = required(source, "describe the image as it is");
      body.target = required(target, "describe the image as it should become");
    } else {
      if (!state.changes.length) throw new Error("choose a finding to remove (−) or to add (+) first");
      for (const direction of ["remove", "add"]) body[direction] = state.changes.filter((c) => c.direction === direction).map(words);
    }
    return { path: "edit", body };
  }

  return {
    request,
    method: () => method.value || modelOf().method,
    setImage(image) {
      $("submit").disabled = false;
      const size = image.spacing_mm ? `, ${image.spacing_mm[1].toPrecision(3)} mm a pixel` : "";
      const made = image.synthetic ? "Synthetic. " : "";
      imageFacts.textContent = `${made}${image.name}: ${image.width} × ${image.height}, ${image.bits} bits, ${image.format}${size}`;
    },
    /** Choose this question, as if by hand: used by examples. */
    choose(finding, direction) {
      state.kind = "findings";
      kinds.querySelector("[value=findings]").checked = true;
      state.changes = [];
      if (finding in modelOf().findings) toggle(finding, direction);
      showKind();
    },
    clearRegion,
    file,
  };
}

function required(box, message) {
  const text = box.value.trim();
  if (text) return text;
  box.focus();
  throw new Error(message);
}
