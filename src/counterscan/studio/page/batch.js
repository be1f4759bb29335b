// The same question of many rows of a data set: launch it, watch it, look at the answers.

import { KINDS, fileAddress, post, viewOfItem } from "./api.js";
import { attempt, capital, h, plural, say, select } from "./dom.js";
import { track } from "./jobs.js";
import { thumbnail } from "./session.js";
import { WHOLE } from "./viewer.js";

const field = (label, control) => h("label", { className: "field" }, h("span", {}, label), control);

/** The form and its answers; `chosen()` says which manifest and which search, `act.take(image)` opens an answer. */
export function makeBatch(about, act, chosen) {
  const models = select(about.models.map((model) => [model.name, model.label]), { id: "a-model", onchange: () => showModel() });
  const direction = select([["remove", "Remove"], ["add", "Add"]], { id: "a-direction" });
  const finding = h("select", { id: "a-finding" });
  const method = select([["", "The model's own"], ...about.methods], { id: "a-method" });
  const n = select(["5", "10", "25", "50"], { id: "a-n", value: "5" });
  const jobs = h("div", { className: "jobs", "aria-live": "polite" });
  const gallery = h("div", { className: "gallery", id: "answers" });
  const form = h("form", {}, h("div", { className: "row fields" }, field("What if", direction), field("Finding", finding), field("Model", models),
    field("Method", method), field("Rows, from the first found", n), h("button", { type: "submit", className: "primary", id: "a-submit" }, "Ask of all")), jobs);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(ask);
  });
  showModel();
  return h("details", { className: "card", id: "batch" }, h("summary", {}, "Ask the same of many rows"),
    h("p", { className: "dim small" }, "Up to 50 here. For a whole archive, which can stop and go on: counterscan batch."), form, gallery);

  function showModel() {
    const model = about.models.find(({ name }) => name === models.value);
    finding.replaceChildren(...Object.keys(model.findings).sort().map((name) => h("option", { value: name }, name)));
  }

  async function ask() {
    const body = { ...chosen(), [direction.value]: [finding.value], model: models.value, method: method.value || null, n: Number(n.value) };
    const words = `${capital(direction.value)} ${finding.value}`;
    const job = await track(jobs, (await post("batch", body)).job, words);
    if (job.state !== "done") return say(job.error || "Cancelled", job.error ? "bad" : "");
    const { items, failures, manifest } = job.result;
    const cards = await Promise.all(items.map((item, k) => card(job, item, k, manifest)));
    const failed = failures.length ? h("ul", {}, failures.map(({ row, error }) => h("li", { className: "less small" }, `row ${row}: ${error}`))) : null;
    gallery.prepend(h("section", {}, h("h3", {}, `${words}: ${plural(items.length, "answer")}`), failed, h("div", { className: "grid" }, cards)));
    return undefined;
  }

  async function card(job, item, k, manifest) {
    const canvas = thumbnail(await viewOfItem(job.id, item), WHOLE, 256);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Synthetic answer for row ${item.row}`);
    const original = `api/datasets/thumbnail?${new URLSearchParams({ manifest, row: item.row })}`;
    return h("figure", {}, h("div", { className: "shot pair" }, h("img", { src: original, alt: `Row ${item.row}, original`, loading: "lazy" }), canvas, h("span", { className: "tag right" }, "Synthetic")),
      h("figcaption", {}, h("span", { className: "dim" }, `row ${item.row}, ${(100 * item.changed).toFixed(1)} % changed`), h("span", { className: "row" },
        h("button", { type: "button", onclick: () => attempt(async () => act.take(await post(`jobs/${job.id}/items/${k}/image`))) }, "Edit"),
        KINDS.filter(([key]) => item.files[key]).map(([key, label]) =>
          h("a", { href: fileAddress(job.id, item.files[key], true), download: item.files[key] }, label)))));
  }
}
