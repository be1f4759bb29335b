// Jobs that wait or run: a row each, with live progress and a way to cancel.

import { follow, remove } from "./api.js";
import { attempt, h } from "./dom.js";

const WORDS = { queued: "waiting", running: "running" };

/** Show a job in `list` until it has ended; resolves with the ended job. */
export async function track(list, id, label) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": label });
  const text = h("span", { className: "dim small" }, "waiting");
  const stop = h("button", { type: "button", className: "quiet cancel" }, "Cancel");
  const row = h("div", { className: "job" }, h("div", { className: "row spread" }, h("b", { className: "small" }, label), stop), bar, text);
  let stopping = false;
  stop.addEventListener("click", () => {
    stopping = true;
    stop.disabled = true;
    text.textContent = "stopping…";
    attempt(() => remove(`jobs/${id}`));
  });
  list.append(row);
  const began = performance.now();
  try {
    return await follow(id, ({ state, progress }) => {
      const { done, total, ahead } = progress;
      if (total) bar.value = done / total;
      else bar.removeAttribute("value");
      if (stopping) return;
      const seconds = (performance.now() - began) / 1000;
      const left = done > 0 && done < total ? `, about ${Math.ceil((seconds * (total - done)) / done)} s left` : "";
      const place = ahead ? `, ${ahead} before it` : "";
      text.textContent = total ? `${done} of ${total} steps${left}` : `${WORDS[state] || state}${place}`;
    });
  } finally {
    row.remove();
  }
}
