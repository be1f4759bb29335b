// The HTTP API. Everything the page does goes through here.

/** The server's own words about why something was refused. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(`api/${path}`, options);
  } catch {
    throw new Refused("the studio does not answer; is it still running?", 0);
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let detail = text;
  try {
    detail = JSON.parse(text).detail;
    if (Array.isArray(detail)) detail = detail.map((fault) => `${fault.loc.slice(1).join(" ")}: ${fault.msg}`).join("; ");
  } catch {
    // no JSON: the text itself
  }
  if (answer.status === 401) document.dispatchEvent(new CustomEvent("session-lost"));
  throw new Refused(detail || `the studio answered ${answer.status}`, answer.status);
}

export const get = async (path) => (await ask(path)).json();
export const remove = (path) => ask(path, { method: "DELETE" });
export async function post(path, value) {
  const options = { method: "POST" };
  if (value !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(value);
  }
  return (await ask(path, options)).json();
}

/** Send a file; answers with the image's facts. */
export async function upload(file) {
  return (await ask(`images?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file })).json();
}

/** Send a zip of DICOM files; answers with the series. */
export async function uploadSeries(blob, name) {
  return (await ask(`series?name=${encodeURIComponent(name)}`, { method: "POST", body: blob })).json();
}

const known = new Map(); // path → picture, the latest last
const KEPT = 24;

/** Numbers to look at: {width, height, channels, data: Uint16Array}, where 65535 is white. */
export async function picture(path, view) {
  let found = known.get(path);
  known.delete(path);
  if (!found) {
    const data = new Uint16Array(await (await ask(path)).arrayBuffer());
    found = { width: view.width, height: view.height, channels: view.channels, data };
  }
  known.set(path, found);
  if (known.size > KEPT) known.delete(known.keys().next().value);
  return found;
}

export const viewOfImage = (image) => picture(`images/${image.image}/view`, image.view);
export const viewOfItem = (job, item, kind = "view") => picture(`jobs/${job}/files/${encodeURIComponent(item.files[kind])}`, item.view);
export const fileAddress = (job, name, download) =>
  `api/jobs/${job}/files/${encodeURIComponent(name)}${download ? "?download=true" : ""}`;

/** What can be downloaded of a job's image, [key, label]: PNG and DICOM, or the array of several contrasts. */
export const KINDS = [["png", "PNG"], ["dicom", "DICOM"], ["array", "NumPy array"]];

/** Follow a job to its end; `progress(job)` hears of every look. */
export async function follow(id, progress) {
  for (let wait = 80; ; wait = Math.min(wait * 1.3, 500)) {
    const job = await get(`jobs/${id}`);
    progress(job);
    if (job.state !== "queued" && job.state !== "running") return job;
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}
