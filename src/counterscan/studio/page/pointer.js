// What mouse, pen, fingers and keys do on the viewer.

const NEAR = 22; // pixels around the slider's line that take hold of it

/** Listen on the viewer's canvas. Left drag does the chosen tool, right drag windows, the wheel zooms. */
export function listen(viewer) {
  const { canvas } = viewer;
  const fingers = new Map();
  let action = null;
  let last = null;

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    if (!viewer.before) return;
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    fingers.set(event.pointerId, place(event));
    last = place(event);
    action = fingers.size > 1 ? "pinch" : begin(viewer, event, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    const point = place(event);
    viewer.pointer = point;
    if (!fingers.has(event.pointerId)) return viewer.changed();
    if (action === "pinch") pinch(viewer, fingers, event.pointerId, point);
    else drag(viewer, action, last, point);
    fingers.set(event.pointerId, point);
    last = point;
    return undefined;
  });
  const end = (event) => {
    if (!fingers.delete(event.pointerId)) return;
    if (action === "box") finishBox(viewer);
    action = fingers.size ? "pinch" : null;
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", () => {
    viewer.pointer = null;
    viewer.changed();
  });
  canvas.addEventListener("dblclick", () => viewer.fit());
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (viewer.before) viewer.zoom(Math.exp(-event.deltaY * 0.0015), ...place(event));
    },
    { passive: false },
  );
  canvas.addEventListener("keydown", (event) => key(viewer, event));
}

function begin(viewer, event, [x, y]) {
  if (event.button === 1) return "pan";
  if (event.button === 2) return "window";
  if (viewer.mode === "compare" && Math.abs(x - viewer.line) < NEAR) return "slide";
  if (viewer.tool === "brush" || viewer.tool === "erase") stroke(viewer, [x, y], [x, y]);
  if (viewer.tool === "box") {
    const [px, py] = viewer.toPicture(x, y);
    viewer.box = [px, py, px, py];
  }
  return viewer.tool;
}

function drag(viewer, action, [x0, y0], [x1, y1]) {
  if (action === "pan") viewer.pan(x1 - x0, y1 - y0);
  else if (action === "slide") viewer.line = x1;
  else if (action === "window") {
    const { level, width } = viewer.window;
    viewer.setWindow({ width: width + (x1 - x0) * 0.003, level: level - (y1 - y0) * 0.002 });
  } else if (action === "brush" || action === "erase") stroke(viewer, [x0, y0], [x1, y1]);
  else if (action === "box") {
    viewer.box.splice(2, 2, ...viewer.toPicture(x1, y1));
    viewer.draw();
  }
}

function pinch(viewer, fingers, moved, point) {
  const [, other] = [...fingers].find(([id]) => id !== moved) || [];
  const from = fingers.get(moved);
  if (!other) return;
  const far = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  viewer.pan((point[0] - from[0]) / 2, (point[1] - from[1]) / 2);
  viewer.zoom(far(point, other) / Math.max(far(from, other), 1), (point[0] + other[0]) / 2, (point[1] + other[1]) / 2);
}

function stroke(viewer, from, to) {
  const context = viewer.drawn.getContext("2d");
  context.globalCompositeOperation = viewer.tool === "erase" ? "destination-out" : "source-over";
  context.strokeStyle = "#7fd4b8";
  context.lineCap = "round";
  context.lineWidth = Math.max(1, viewer.brush * viewer.drawn.width);
  context.beginPath();
  context.moveTo(...viewer.toPicture(...from));
  context.lineTo(...viewer.toPicture(...to));
  context.stroke();
  viewer.set({});
}

/** Fill a box of the picture: it may change. */
export function fillBox(viewer, [left, top, right, bottom]) {
  const context = viewer.drawn.getContext("2d");
  context.globalCompositeOperation = "source-over";
  context.fillStyle = "#7fd4b8";
  context.fillRect(Math.min(left, right), Math.min(top, bottom), Math.abs(right - left), Math.abs(bottom - top));
  viewer.set({});
}

function finishBox(viewer) {
  if (viewer.boxed) viewer.boxed(viewer.box);
  else fillBox(viewer, viewer.box);
  viewer.box = null;
  viewer.set({});
}

const STEP = 40;
const KEYS = {
  ArrowLeft: (v, shift) => (shift ? v.setWindow({ width: v.window.width - 0.05 }) : v.pan(STEP, 0)),
  ArrowRight: (v, shift) => (shift ? v.setWindow({ width: v.window.width + 0.05 }) : v.pan(-STEP, 0)),
  ArrowUp: (v, shift) => (shift ? v.setWindow({ level: v.window.level + 0.03 }) : v.pan(0, STEP)),
  ArrowDown: (v, shift) => (shift ? v.setWindow({ level: v.window.level - 0.03 }) : v.pan(0, -STEP)),
  "+": (v) => v.zoom(1.25),
  "=": (v) => v.zoom(1.25),
  "-": (v) => v.zoom(0.8),
  0: (v) => v.fit(),
  ",": (v) => v.set({ split: Math.max(0, v.split - 0.02) }),
  ".": (v) => v.set({ split: Math.min(1, v.split + 0.02) }),
};

function key(viewer, event) {
  const act = KEYS[event.key];
  if (!act || !viewer.before || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act(viewer, event.shiftKey);
}
