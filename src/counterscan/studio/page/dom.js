// Small helpers for building the page.

export const $ = (id) => document.getElementById(id);

/** An element with properties and children; `on*` are listeners, `data-*`, `aria-*` and `role` are attributes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.includes("-") || key === "role" || key === "for" || key === "colspan") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A select of options: strings, or [value, label]. */
export function select(options, properties = {}) {
  const pairs = options.map((option) => (Array.isArray(option) ? option : [option, option]));
  const { value, ...rest } = properties;
  const element = h("select", rest, pairs.map(([name, label]) => h("option", { value: name }, label)));
  if (value !== undefined) element.value = value;
  return element;
}

let timer = 0;

/** Say something at the foot of the page, for all to see and for screen readers to speak. */
export function say(message, kind = "") {
  const note = $("note");
  note.textContent = message;
  note.className = `note shown ${kind}`;
  clearTimeout(timer);
  timer = setTimeout(() => (note.className = "note"), kind === "bad" ? 9000 : 4000);
}

/** Run an action of the user; what goes wrong is said. */
export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    say(error.message || String(error), "bad");
    return undefined;
  }
}

export const capital = (text) => (text ? text[0].toUpperCase() + text.slice(1) : text);
export const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
export const number = (value) =>
  value === null || value === undefined ? "" : value >= 10 ? value.toFixed(0) : value.toPrecision(3);
