// Whole images from a text.

import { KINDS, fileAddress, post, viewOfItem } from "./api.js";
import { attempt, h, say, select } from "./dom.js";
import { track } from "./jobs.js";
import { thumbnail } from "./session.js";
import { WHOLE } from "./viewer.js";

/** Build the tab; `act.take(image)` opens an image to edit. */
export function makeGenerate(root, about, act) {
  const models = select(about.models.map((model) => [model.name, model.label]), { id: "g-model", onchange: () => showModel() });
  const prompt = h("textarea", { id: "g-prompt", rows: 3 });
  const n = select(["1", "2", "4", "8"], { id: "g-n", value: "4" });
  const steps = h("input", { type: "number", id: "g-steps", min: 1, max: 100, value: 30 });
  const guidance = h("input", { type: "number", id: "g-guidance", min: 0, max: 20, step: 0.5, value: 2 });
  const seed = h("input", { type: "number", id: "g-seed", min: 0, value: 0 });
  const words = h("div", { className: "chips" });
  const jobs = h("div", { className: "jobs", "aria-live": "polite" });
  const gallery = h("div", { className: "gallery", id: "gallery" });
  const field = (label, control) => h("label", { className: "field" }, h("span", {}, label), control);

  function showModel() {
    const model = about.models.find(({ name }) => name === models.value);
    prompt.value = model.template;
    words.replaceChildren(...Object.keys(model.findings).sort().map((name) => h("button", { type: "button", className: "chip", onclick: () => {
      prompt.value = prompt.value.trim() ? `${prompt.value.trim().replace(/,$/, "")}, ${name}` : name;
    } }, name)));
  }

  const form = h("form", { className: "card" }, h("h2", {}, "Text to image"),
    field("Describe the image", prompt), words,
    h("div", { className: "row fields" }, field("Model", models), field("Images", n), field("Steps", steps), field("Guidance", guidance), field("Seed", seed)),
    h("div", { className: "row" }, h("button", { type: "submit", className: "primary", id: "g-submit" }, "Make images"), h("span", { className: "dim small" }, "Every image is synthetic, of nobody, and not for diagnosis.")),
    jobs);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(make);
  });
  root.append(form, gallery);
  showModel();

  async function make() {
    const body = { prompt: prompt.value.trim(), n: Number(n.value), steps: Number(steps.value), guidance: Number(guidance.value), model: models.value, seed: Number(seed.value) || 0 };
    if (!body.prompt) throw new Error("describe the image first");
    const job = await track(jobs, (await post("generate", body)).job, body.prompt);
    if (job.state === "failed") return say(job.error, "bad");
    if (job.state !== "done") return say("Cancelled");
    const cards = await Promise.all(job.result.items.map((item, k) => card(job, item, k)));
    gallery.prepend(h("section", {}, h("h3", {}, job.result.prompt), h("div", { className: "grid" }, cards)));
    return undefined;
  }

  async function card(job, item, k) {
    const canvas = thumbnail(await viewOfItem(job.id, item), WHOLE, 320);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Synthetic image, seed ${item.seed}`);
    return h("figure", {}, h("div", { className: "shot" }, canvas, h("span", { className: "tag right" }, "Synthetic")),
      h("figcaption", {}, h("span", { className: "dim" }, `seed ${item.seed}`), h("span", { className: "row" },
        h("button", { type: "button", onclick: () => attempt(async () => act.take(await post(`jobs/${job.id}/items/${k}/image`))) }, "Edit"),
        KINDS.filter(([key]) => item.files[key]).map(([key, label]) =>
          h("a", { href: fileAddress(job.id, item.files[key], true), download: item.files[key] }, label)))));
  }
}
