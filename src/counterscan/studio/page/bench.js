// Results of `counterscan bench`: a leaderboard, every row, and the pictures.

import { get } from "./api.js";
import { h, number, plural, select } from "./dom.js";

const COLUMNS = [
  ["error_inside", "Error inside", "Distance to the true counterfactual where it should change: 0 exact, 1 nothing done", 1],
  ["drift_outside", "Drift outside", "Mean change where nothing should change, in intensities from 0 to 1", 1],
  ["mask_auprc", "Mask AUPRC", "How well the difference finds the true change: 1 perfect", -1],
  ["mask_dice", "Mask Dice", "Overlap of the edit's mask with the true change: 1 perfect", -1],
  ["flip_rate", "Flip rate", "How often the judge sees the finding changed", -1],
  ["evaluations", "Evaluations", "Network evaluations an image", 1],
  ["seconds_per_image", "Seconds", "Seconds an image", 1],
];

const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);

/** One line a method: the mean of each column over its rows. */
export function leaderboard(rows) {
  const methods = [...new Set(rows.map((row) => row.method))];
  return methods.map((method) => {
    const some = rows.filter((row) => row.method === method);
    const means = COLUMNS.map(([key]) => [key, mean(some.map((row) => row[key]).filter((v) => v !== null && v !== undefined))]);
    return { method, finding: "all findings", direction: "", ...Object.fromEntries(means) };
  });
}

/** Fill the tab. */
export async function showBench(root) {
  if (root.childElementCount) return;
  const { benches } = await get("benches");
  if (!benches.length) {
    root.replaceChildren(h("div", { className: "card hint" }, h("h2", {}, "No benchmark on the shelf"),
      h("p", {}, "Judge the methods against exact counterfactuals of a computed world, then show the results here."),
      h("pre", {}, "counterscan bench -n 16 -o benches/first\ncounterscan studio --bench benches")));
    return;
  }
  const names = select(benches.map((bench, k) => [String(k), bench.name === "." ? "benchmark" : bench.name]), { id: "b-name", onchange: () => show() });
  const body = h("div", { id: "b-body" });
  root.replaceChildren(h("div", { className: "card" }, h("h2", {}, "Benchmark"), h("label", { className: "field" }, h("span", {}, "Result"), names)), body);
  show();

  function show() {
    const k = Number(names.value);
    const bench = benches[k];
    const floor = bench.floor ? ` The autoencoder alone has error ${number(bench.floor.error_inside)}.` : "";
    const shots = bench.pictures.map((name) => {
      const address = `api/benches/${k}/${name}`;
      return h("figure", {}, h("a", { href: address, target: "_blank", rel: "noopener" }, h("img", { src: address, alt: name, loading: "lazy" })), h("figcaption", { className: "dim" }, name.replace("cells/", "").replace(".png", "").replaceAll("-", " ")));
    });
    body.replaceChildren(
      h("p", { className: "dim" }, `${bench.model} on the ${bench.world || "chest"} world, ${plural(bench.n, "case")} a cell.${floor} All images are synthetic.`),
      h("h3", {}, "Leaderboard"), table(leaderboard(bench.rows || []), true),
      h("h3", {}, "Every finding and direction"), table(bench.rows || [], false),
      shots.length ? h("h3", {}, "Pictures") : "", h("div", { className: "grid wide" }, shots));
  }
}

function table(rows, short) {
  let by = "error_inside";
  let way = 1;
  const head = h("tr");
  const body = h("tbody");
  const words = short ? [["method", "Method"]] : [["method", "Method"], ["finding", "Finding"], ["direction", "Direction"]];

  function fill() {
    const order = [...rows].sort((a, b) => (a[by] === null || a[by] === undefined) - (b[by] === null || b[by] === undefined) || (a[by] > b[by] ? way : a[by] < b[by] ? -way : 0));
    const best = Object.fromEntries(COLUMNS.map(([key, , , good]) => [key, Math.min(...rows.map((row) => row[key]).filter((v) => v !== null && v !== undefined).map((v) => v * good)) * good]));
    head.replaceChildren(...[...words, ...COLUMNS].map(([key, title, about]) => h("th", { scope: "col", title: about || "", "aria-sort": key === by ? (way > 0 ? "ascending" : "descending") : "none" },
      h("button", { type: "button", onclick: () => { way = by === key ? -way : 1; by = key; fill(); } }, title))));
    body.replaceChildren(...order.map((row) => h("tr", {}, words.map(([key]) => h("td", {}, row[key])),
      COLUMNS.map(([key]) => h("td", { className: `number ${row[key] === best[key] && short ? "best" : ""}` }, key === "error_inside" && row[key] !== null ? meter(row[key]) : null, number(row[key]))))));
  }

  fill();
  return h("div", { className: "scroll" }, h("table", {}, h("thead", {}, head), body));
}

const meter = (value) => h("meter", { min: 0, max: 1.2, value, low: 0.5, high: 0.9, optimum: 0, title: "0 exact, 1 nothing done" });
