// Data sets on the server's shelf: browse a manifest, open an image, ask the same of many.

import { get, post } from "./api.js";
import { makeBatch } from "./batch.js";
import { attempt, h, plural, select } from "./dom.js";

const PAGE = 25;

/** Fill the tab; `act.take(image)` opens an image to edit. */
export async function showData(root, about, act) {
  if (root.childElementCount) return;
  const { manifests } = await get("datasets");
  if (!manifests.length) {
    root.replaceChildren(h("div", { className: "card hint" }, h("h2", {}, "No data set on the shelf"),
      h("p", {}, "Start the studio with a folder that holds a manifest: a CSV or Parquet table with a column path."),
      h("pre", {}, "counterscan data import chexpert SRC -o sets/chexpert.csv\ncounterscan studio --data sets")));
    return;
  }
  let offset = 0;
  const names = select(manifests, { id: "manifest", onchange: () => start() });
  const query = h("input", { type: "search", id: "d-query", placeholder: "Words in any column", "aria-label": "Search the rows" });
  const total = h("span", { className: "dim", "aria-live": "polite" });
  const body = h("tbody");
  const earlier = h("button", { type: "button", onclick: () => turn(-PAGE) }, "Earlier");
  const later = h("button", { type: "button", onclick: () => turn(PAGE) }, "Later");
  const form = h("form", { className: "row fields" }, h("label", { className: "field" }, h("span", {}, "Data set"), names), h("label", { className: "field grow" }, h("span", {}, "Search"), query),
    h("button", { type: "submit" }, "Search"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  root.replaceChildren(h("div", { className: "card" }, h("h2", {}, "Data sets"), form, h("div", { className: "row" }, total, h("span", { className: "gap" }), earlier, later)),
    makeBatch(about, act, () => ({ manifest: names.value, query: query.value })),
    h("div", { className: "scroll" }, h("table", { id: "rows" }, h("thead", {}, h("tr", {}, ["", "Image", "Patient", "Age, sex, view", "Split", "Findings", ""].map((title) => h("th", { scope: "col" }, title)))), body)));
  await show();

  function start() {
    offset = 0;
    attempt(show);
  }

  function turn(step) {
    offset = Math.max(0, offset + step);
    attempt(show);
  }

  async function show() {
    const words = new URLSearchParams({ manifest: names.value, offset, limit: PAGE, query: query.value });
    const found = await get(`datasets/rows?${words}`);
    total.textContent = `${plural(found.total, "row")}${found.total ? `, ${offset + 1} to ${Math.min(offset + PAGE, found.total)}` : ""}`;
    earlier.disabled = offset === 0;
    later.disabled = offset + PAGE >= found.total;
    body.replaceChildren(...found.rows.map(line));
  }

  function line(row) {
    const place = new URLSearchParams({ manifest: names.value, row: row.row });
    const about = [row.age && `${Number(row.age)}`, row.sex, row.view].filter(Boolean).join(", ");
    const open = () => attempt(async () => act.take(await post("datasets/open", { manifest: names.value, row: row.row })));
    return h("tr", {}, h("td", {}, h("img", { src: `api/datasets/thumbnail?${place}`, alt: "", loading: "lazy", width: 64, height: 64 })),
      h("td", {}, h("b", {}, row.path.split("/").at(-1)), row.caption ? h("div", { className: "dim small" }, row.caption) : null),
      h("td", {}, row.patient || ""), h("td", {}, about), h("td", {}, row.split || ""),
      h("td", {}, h("div", { className: "chips" }, row.findings.map((name) => h("span", { className: "chip" }, name)))),
      h("td", {}, h("button", { type: "button", "aria-label": `Open ${row.path}`, onclick: open }, "Open")));
  }
}
