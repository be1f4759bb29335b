// The viewer: one canvas with pan, zoom, window and level, and ways of looking at two pictures and a map between them.

import { fittingWindow, windowed } from "./maps.js";
import { listen } from "./pointer.js";

export const WHOLE = { level: 0.5, width: 1, invert: false };
const LINE = "#e8edf3";

export class Viewer {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.before = null;
    this.after = null;
    this.map = null; // a canvas over the picture
    this.mode = "before"; // before, after, compare, side, map (on dark) or over (on the original)
    this.split = 0.5;
    this.at = { scale: 1, x: 0, y: 0 };
    this.window = { ...WHOLE };
    this.tool = "pan";
    this.brush = 0.04; // of the picture's width
    this.drawn = null; // a canvas: what may change
    this.outline = null; // a named region: top, left, bottom, right as parts of the whole
    this.boxes = []; // numbered: [left, top, right, bottom] in picture pixels
    this.boxed = null; // takes a box that was drawn, instead of its becoming a drawn region
    this.changed = () => {}; // told of every change of window, zoom and split
    this.painted = new Map();
    new ResizeObserver(() => this.resize()).observe(canvas);
    listen(this);
  }

  /** Show a picture alone; the view is fitted when its size is another. */
  setBefore(picture) {
    const same = this.before && this.before.width === picture.width && this.before.height === picture.height;
    this.before = picture;
    this.after = this.map = null;
    this.mode = "before";
    this.boxes = [];
    this.painted.clear();
    if (!same) {
      this.drawn = Object.assign(document.createElement("canvas"), { width: picture.width, height: picture.height });
      this.fit();
    }
    this.draw();
  }

  setAfter(picture) {
    this.after = picture;
    this.painted.clear();
    this.draw();
  }

  set(changes) {
    Object.assign(this, changes);
    this.draw();
    this.changed();
  }

  setWindow(changes) {
    Object.assign(this.window, changes);
    this.window.width = Math.max(0.01, Math.min(2, this.window.width));
    this.window.level = Math.max(-0.2, Math.min(1.2, this.window.level));
    this.set({});
  }

  autoWindow() {
    if (this.before) this.setWindow(fittingWindow(this.before));
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const fitted = this.fitted;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    if (fitted) this.fit();
    this.draw();
  }

  /** The whole picture in the middle of its pane. */
  fit() {
    if (!this.before) return;
    const width = this.paneWidth;
    const height = this.canvas.clientHeight;
    const scale = Math.min(width / this.before.width, height / this.before.height);
    this.at = { scale, x: (width - this.before.width * scale) / 2, y: (height - this.before.height * scale) / 2 };
    this.fitted = true;
    this.set({});
  }

  get paneWidth() {
    return this.mode === "side" ? this.canvas.clientWidth / 2 : this.canvas.clientWidth;
  }

  /** Zoom by a factor around a point of the canvas. */
  zoom(factor, x = this.paneWidth / 2, y = this.canvas.clientHeight / 2) {
    const px = this.mode === "side" ? x % this.paneWidth : x;
    const scale = Math.max(0.05, Math.min(40, this.at.scale * factor));
    const f = scale / this.at.scale;
    this.at = { scale, x: px - (px - this.at.x) * f, y: y - (y - this.at.y) * f };
    this.fitted = false;
    this.set({});
  }

  pan(dx, dy) {
    this.at.x += dx;
    this.at.y += dy;
    this.fitted = false;
    this.set({});
  }

  /** Bring a box of the picture into the middle. */
  goTo([left, top, right, bottom]) {
    const width = this.paneWidth;
    const height = this.canvas.clientHeight;
    const scale = Math.min(width / (right - left), height / (bottom - top), 24 * this.at.scale) / 2.2;
    this.at = { scale, x: width / 2 - (scale * (left + right)) / 2, y: height / 2 - (scale * (top + bottom)) / 2 };
    this.fitted = false;
    this.set({});
  }

  /** The picture pixel under a point of the canvas. */
  toPicture(x, y) {
    const px = this.mode === "side" ? x % this.paneWidth : x;
    return [(px - this.at.x) / this.at.scale, (y - this.at.y) / this.at.scale];
  }

  /** Where the slider's line is on the canvas: it runs over the part of the picture that is to be seen. */
  get line() {
    const left = Math.max(0, this.at.x);
    const right = Math.min(this.canvas.clientWidth, this.at.x + this.before.width * this.at.scale);
    return left + this.split * (right - left);
  }

  set line(x) {
    const left = Math.max(0, this.at.x);
    const right = Math.min(this.canvas.clientWidth, this.at.x + this.before.width * this.at.scale);
    this.set({ split: Math.max(0, Math.min(1, (x - left) / (right - left))) });
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
    });
  }

  paint() {
    const { context, canvas } = this;
    const ratio = canvas.width / Math.max(canvas.clientWidth, 1);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    if (!this.before) return;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (this.mode === "compare" && this.after) {
      this.pane(0, this.line, 0, this.before);
      this.pane(this.line, width - this.line, 0, this.after);
      this.handle(this.line, height);
    } else if (this.mode === "side" && this.after) {
      this.pane(0, width / 2, 0, this.before);
      this.pane(width / 2, width / 2, width / 2, this.after);
      context.fillStyle = "#2a3340";
      context.fillRect(width / 2 - 0.5, 0, 1, height);
    } else if (this.mode === "map") this.pane(0, width, 0, null, this.map);
    else if (this.mode === "over") this.pane(0, width, 0, this.before, this.map);
    else this.pane(0, width, 0, this.mode === "after" ? this.after : this.before);
  }

  /** One picture, its map, the drawn region and the boxes, between `left` and `left + width`, shifted by `shift`. */
  pane(left, width, shift, picture, map = null) {
    const { context, at } = this;
    context.save();
    context.beginPath();
    context.rect(left, 0, width, this.canvas.clientHeight);
    context.clip();
    context.translate(at.x + shift, at.y);
    context.imageSmoothingEnabled = at.scale < 6;
    context.imageSmoothingQuality = "high";
    const size = [this.before.width * at.scale, this.before.height * at.scale];
    if (picture) context.drawImage(this.shown(picture), 0, 0, ...size);
    else {
      context.fillStyle = "#0a0d12";
      context.fillRect(0, 0, ...size);
    }
    if (map) context.drawImage(map, 0, 0, ...size);
    if (this.drawn && this.mode !== "map") {
      context.globalAlpha = 0.28;
      context.drawImage(this.drawn, 0, 0, ...size);
      context.globalAlpha = 1;
    }
    this.marks(size);
    context.restore();
  }

  marks([width, height]) {
    const { context, at } = this;
    context.lineWidth = 1.25;
    if (this.outline) {
      const [top, left, bottom, right] = this.outline;
      context.setLineDash([6, 5]);
      context.strokeStyle = "#7fd4b8";
      context.strokeRect(left * width, top * height, (right - left) * width, (bottom - top) * height);
      context.setLineDash([]);
    }
    context.font = "600 12px system-ui, sans-serif";
    this.boxes.forEach(([left, top, right, bottom], k) => {
      context.strokeStyle = LINE;
      context.strokeRect(left * at.scale, top * at.scale, (right - left) * at.scale, (bottom - top) * at.scale);
      context.fillStyle = "#000c";
      context.fillRect(left * at.scale, top * at.scale - 17, 17, 17);
      context.fillStyle = LINE;
      context.fillText(String(k + 1), left * at.scale + 5, top * at.scale - 4);
    });
    if (this.box) {
      const [left, top, right, bottom] = this.box;
      context.strokeStyle = "#7fd4b8";
      context.strokeRect(left * at.scale, top * at.scale, (right - left) * at.scale, (bottom - top) * at.scale);
    }
  }

  handle(x, height) {
    const { context } = this;
    context.fillStyle = "#ffffffd0";
    context.fillRect(x - 1, 0, 2, height);
    context.beginPath();
    context.arc(x, height / 2, 15, 0, 2 * Math.PI);
    context.fill();
    context.fillStyle = "#10141a";
    context.font = "15px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillText("↔", x, height / 2 + 5);
    context.textAlign = "start";
  }

  /** A picture through the window, painted once for each window. */
  shown(picture) {
    const key = `${this.window.level} ${this.window.width} ${this.window.invert}`;
    const known = this.painted.get(picture);
    if (known && known.key === key) return known.canvas;
    const canvas = windowed(picture, this.window);
    this.painted.set(picture, { key, canvas });
    return canvas;
  }
}
