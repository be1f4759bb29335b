// The bar above the image: what dragging does, the window, and the way back.

import { $, h } from "./dom.js";
import { WHOLE } from "./viewer.js";

const TOOLS = [
  ["pan", "Pan", "Drag moves the image; the wheel zooms"],
  ["window", "Window", "Drag sideways for width, up and down for level; the right button always does this"],
  ["brush", "Brush", "Paint where the image may change"],
  ["box", "Box", "Draw a box where the image may change"],
  ["erase", "Erase", "Take away from the drawn region"],
];

/** Fill the bar; `act.undo()` goes back. */
export function makeTools(root, viewer, act) {
  const size = h("input", { type: "range", min: 0.01, max: 0.15, step: 0.005, value: viewer.brush, "aria-label": "Brush size", hidden: true,
    oninput: () => viewer.set({ brush: Number(size.value) }) });
  const tools = h("div", { className: "segments", role: "radiogroup", "aria-label": "What dragging does" }, TOOLS.map(([name, label, title]) =>
    h("label", { title }, h("input", { type: "radio", name: "tool", value: name, checked: name === viewer.tool, onchange: () => {
      viewer.set({ tool: name });
      size.hidden = name !== "brush" && name !== "erase";
      $("canvas").dataset.tool = name;
    } }), h("span", {}, label))));
  const button = (label, title, onclick, more = {}) => h("button", { type: "button", title, onclick, ...more }, label);
  root.append(tools, size, h("span", { className: "gap" }),
    button("Fit", "Show the whole image (0, or a double click)", () => viewer.fit()),
    button("Auto window", "Fit the window to this image", () => viewer.autoWindow()),
    button("Full range", "The window the file asks for", () => viewer.setWindow({ ...WHOLE, invert: viewer.window.invert })),
    button("Invert", "Black for white", () => viewer.setWindow({ invert: !viewer.window.invert })),
    button("Undo", "Back to what was shown before (Ctrl Z)", () => act.undo(), { id: "undo", disabled: true }));

  const readout = $("readout");
  const split = $("split");
  split.addEventListener("input", () => viewer.set({ split: Number(split.value) }));
  viewer.changed = () => {
    if (!viewer.before) return;
    split.value = viewer.split;
    const { level, width } = viewer.window;
    let text = `W ${Math.round(width * 255)}  L ${Math.round(level * 255)}  ${Math.round(viewer.at.scale * 100)} %`;
    if (viewer.pointer) {
      const [x, y] = viewer.toPicture(...viewer.pointer).map(Math.floor);
      const { before } = viewer;
      if (x >= 0 && y >= 0 && x < before.width && y < before.height) {
        const value = before.data[(y * before.width + x) * before.channels] / 257;
        text += `  (${x}, ${y}) ${value.toFixed(0)}`;
      }
    }
    readout.textContent = text;
  };
}
