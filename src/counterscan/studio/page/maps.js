// From two pictures to a signed map, its strength, its regions and its colours. Pure functions on plain arrays.

const MORE = [255, 140, 64]; // denser
const LESS = [77, 184, 255]; // less dense
const SPREAD = [190, 150, 255]; // where repeats disagree

/** After minus before, mean over the channels: {width, height, data: Float32Array} in −1 to 1. */
export function difference(before, after) {
  const { width, height, channels } = before;
  const data = new Float32Array(width * height);
  for (let i = 0, k = 0; i < data.length; i++) {
    let sum = 0;
    for (let c = 0; c < channels; c++, k++) sum += after.data[k] - before.data[k];
    data[i] = sum / (65535 * channels);
  }
  return { width, height, data };
}

/** A signed map that was sent as value / 2 + 0.5. */
export function signed(picture) {
  const data = Float32Array.from(picture.data, (value) => (value / 65535) * 2 - 1);
  return { width: picture.width, height: picture.height, data };
}

/** Numbers in 0 to 1 as they were sent. */
export function plain(picture) {
  return { width: picture.width, height: picture.height, data: Float32Array.from(picture.data, (v) => v / 65535) };
}

/** Standard deviation over several maps of one size. */
export function spread(maps) {
  const { width, height } = maps[0];
  const data = new Float32Array(width * height);
  for (let i = 0; i < data.length; i++) {
    let sum = 0;
    let squares = 0;
    for (const map of maps) {
      sum += map.data[i];
      squares += map.data[i] ** 2;
    }
    data[i] = Math.sqrt(Math.max(squares / maps.length - (sum / maps.length) ** 2, 0));
  }
  return { width, height, data };
}

function blurRows(source, target, width, height, radius) {
  for (let y = 0; y < height; y++) {
    const row = y * width;
    const at = (x) => source[row + Math.min(Math.max(x, 0), width - 1)];
    let sum = 0;
    for (let x = -radius; x <= radius; x++) sum += at(x);
    for (let x = 0; x < width; x++) {
      target[row + x] = sum / (2 * radius + 1);
      sum += at(x + radius + 1) - at(x - radius);
    }
  }
}

function turned(source, width, height) {
  const target = new Float32Array(source.length);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) target[x * height + y] = source[y * width + x];
  return target;
}

/** The absolute map, smoothed over 1/128 of its side as the library does (three boxes are nearly a Gaussian). */
export function strength({ width, height, data }) {
  let values = Float32Array.from(data, Math.abs);
  const sigma = Math.max(width, height) / 128;
  const radius = Math.round((Math.sqrt(4 * sigma * sigma + 1) - 1) / 2);
  if (radius === 0) return values;
  for (let side = 0; side < 2; side++) {
    const [w, ht] = side ? [height, width] : [width, height];
    let other = new Float32Array(values.length);
    for (let k = 0; k < 3; k++) {
      blurRows(values, other, w, ht, radius);
      [values, other] = [other, values];
    }
    values = turned(values, w, ht);
  }
  return values;
}

/** Connected regions above a threshold, largest mass first: [{box: [left, top, right, bottom], area, mass, sign}]. */
export function regions(map, strong, threshold, smallest = 2e-4) {
  const { width, height, data } = map;
  const seen = new Uint8Array(data.length);
  const stack = new Int32Array(data.length);
  const found = [];
  for (let start = 0; start < data.length; start++) {
    if (seen[start] || strong[start] <= threshold) continue;
    let [left, top, right, bottom, area, mass, sum] = [width, height, 0, 0, 0, 0, 0];
    let depth = 0;
    stack[depth++] = start;
    seen[start] = 1;
    while (depth) {
      const i = stack[--depth];
      const x = i % width;
      const y = (i - x) / width;
      area++;
      mass += Math.abs(data[i]);
      sum += data[i];
      if (x < left) left = x;
      if (x >= right) right = x + 1;
      if (y < top) top = y;
      if (y >= bottom) bottom = y + 1;
      for (let dy = -1; dy <= 1; dy++) {
        for (let dx = -1; dx <= 1; dx++) {
          const n = i + dy * width + dx;
          if (x + dx < 0 || x + dx >= width || y + dy < 0 || y + dy >= height || seen[n] || strong[n] <= threshold) continue;
          seen[n] = 1;
          stack[depth++] = n;
        }
      }
    }
    if (area >= smallest * data.length) found.push({ box: [left, top, right, bottom], area, mass, sign: Math.sign(sum) });
  }
  return found.sort((a, b) => b.mass - a.mass);
}

/** The difference that gets full colour: all but the largest 0.1 %, and never so small that noise glows. */
export function fullColour({ data }) {
  const bins = new Uint32Array(1001);
  for (const value of data) bins[Math.round(Math.min(Math.abs(value), 1) * 1000)]++;
  let left = data.length * 0.001;
  let k = 1000;
  while (k > 0 && (left -= bins[k]) > 0) k--;
  return Math.max(k / 1000, 0.04);
}

/** A map as a canvas: orange denser, blue less dense; clear where `strong` (if given) is not above the threshold. */
export function glow({ width, height, data }, scale, { strong = null, threshold = 0, most = 1, least = 0 } = {}) {
  return coloured(width, height, (i) => {
    if (strong && strong[i] <= threshold) return [MORE, 0];
    const value = Math.max(-1, Math.min(1, data[i] / scale));
    return [value > 0 ? MORE : LESS, value === 0 ? 0 : least + (most - least) * Math.abs(value)];
  });
}

/** An unsigned map as a canvas in one hue. */
export function haze({ width, height, data }, scale) {
  return coloured(width, height, (i) => [SPREAD, Math.min(data[i] / scale, 1)]);
}

function coloured(width, height, colour) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0, k = 0; i < width * height; i++, k += 4) {
    const [[red, green, blue], alpha] = colour(i);
    image.data[k] = red;
    image.data[k + 1] = green;
    image.data[k + 2] = blue;
    image.data[k + 3] = 255 * alpha;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** A picture through a window {level, width, invert} (parts of the whole range), as a canvas. */
export function windowed(picture, { level, width, invert }) {
  const table = new Uint8Array(65536);
  for (let v = 0; v < 65536; v++) {
    const shown = Math.max(0, Math.min(1, (v / 65535 - level) / width + 0.5));
    table[v] = 255 * (invert ? 1 - shown : shown);
  }
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(picture.width, picture.height);
  const pixels = new Uint32Array(image.data.buffer);
  const { data, channels } = picture;
  if (channels === 1) for (let i = 0; i < pixels.length; i++) pixels[i] = 0xff000000 | (table[data[i]] * 0x010101);
  else {
    for (let i = 0, k = 0; i < pixels.length; i++, k += 3) {
      pixels[i] = 0xff000000 | (table[data[k + 2]] << 16) | (table[data[k + 1]] << 8) | table[data[k]];
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** The window that holds all but the darkest and brightest 1 % of a picture. */
export function fittingWindow({ data }) {
  const bins = new Uint32Array(1024);
  for (const value of data) bins[value >> 6]++;
  const edge = (order) => {
    let left = data.length * 0.01;
    return order.find((k) => (left -= bins[k]) < 0);
  };
  const up = [...bins.keys()];
  const low = edge(up) / 1023;
  const high = edge(up.reverse()) / 1023;
  return { level: (low + high) / 2, width: Math.max(high - low, 0.02) };
}

/** A drawn region, a canvas, as the API takes it: one bit a pixel, in base64; null when nothing is drawn. */
export function packed(canvas) {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const bytes = new Uint8Array(Math.ceil((width * height) / 8));
  let any = false;
  for (let i = 0; i < width * height; i++) {
    if (data[4 * i + 3] < 128) continue;
    bytes[i >> 3] |= 128 >> (i & 7);
    any = true;
  }
  if (!any) return null;
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return { width, height, bits: btoa(text) };
}
