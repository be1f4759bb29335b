// A series of DICOM files: which of the dropped files are one, and the window to choose an instance in.

import { post, uploadSeries } from "./api.js";
import { $, attempt, h, plural, say } from "./dom.js";
import { zip } from "./zip.js";

const IMAGE = /\.(png|jpe?g|nii|nii\.gz)$/i; // what of a folder is opened beside its series
const isZip = (file) => /\.zip$/i.test(file.name);

async function isDicom(file) {
  return file.size > 132 && (await file.slice(128, 132).text()) === "DICM";
}

/** Parts dropped files in those of a series, two DICOM files or more, and all others; a zip is a series of its own. */
export async function sorted(files) {
  const zips = files.filter(isZip);
  const dicom = [];
  for (const file of files) if (!isZip(file) && (await isDicom(file))) dicom.push(file);
  const series = dicom.length > 1 ? dicom : [];
  const others = files.filter((file) => !zips.includes(file) && !series.includes(file));
  return { zips, series, others: series.length ? others.filter((file) => IMAGE.test(file.name)) : others };
}

/** Send a zip, or several files as one; answers with the series. */
export async function send(files, about) {
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  const most = about.limits.series_bytes;
  if (bytes > most) throw new Error(`${plural(files.length, "file")} of ${Math.round(bytes / 2 ** 20)} MB: at most ${most / 2 ** 20} MB at once`);
  const [first] = files;
  if (files.length === 1 && isZip(first)) return uploadSeries(first, first.name);
  return uploadSeries(await zip(files), `${plural(files.length, "file")}.zip`);
}

/** Choose an instance of a series; `act.take(image)` opens it. */
export function choose(series, act) {
  const dialog = $("series");
  const title = h("h2", { id: "series-title" }, series.name);
  const count = series.passed_over_count;
  const [first] = series.passed_over;
  const note = count ? h("p", { className: "dim small" }, `${plural(count, "file")} passed over, such as ${first.name}: ${first.why}`) : null;
  const groups = [];
  series.instances.forEach((instance, k) => {
    if (groups.at(-1)?.name !== instance.series) groups.push({ name: instance.series, buttons: [] });
    groups.at(-1).buttons.push(button(instance, k));
  });
  dialog.replaceChildren(
    h("div", { className: "row" }, title, h("span", { className: "dim" }, plural(series.instances.length, "image")), h("span", { className: "gap" }),
      h("button", { type: "button", className: "quiet", onclick: () => dialog.close() }, "Close")),
    h("p", { className: "dim" }, "Choose the image to edit."), ...(note ? [note] : []),
    ...groups.flatMap(({ name, buttons }) => [...(name ? [h("h3", {}, name)] : []), h("div", { className: "instances" }, buttons)]));
  dialog.showModal();

  function button(instance, k) {
    const label = instance.number || k + 1;
    const image = h("img", { src: `api/series/${series.series}/${k}/thumbnail`, alt: "", loading: "lazy", width: 96, height: 96,
      onerror: () => image.classList.add("broken") });
    return h("button", { type: "button", title: `${instance.name}, ${instance.width} × ${instance.height}`, "aria-label": `Image ${label}, ${instance.name}`,
      onclick: () => attempt(async () => {
        say(`Reading ${instance.name}…`);
        const taken = await post(`series/${series.series}/${k}/image`);
        dialog.close();
        await act.take(taken);
      }) }, image, h("span", {}, String(label)));
  }
}

/** The dropped files, those in dropped folders among them. */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return found;
}

async function walk(entry, found) {
  if (entry.isFile) found.push(await new Promise((done, fail) => entry.file(done, fail)));
  else {
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done, fail) => reader.readEntries(done, fail)); // at most a hundred at a time
      if (!some.length) return;
      for (const inner of some) await walk(inner, found);
    }
  }
}
