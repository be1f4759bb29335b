// Several files as one: a zip in which they lie as they are, uncompressed.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function checksum(bytes) {
  let sum = -1;
  for (const byte of bytes) sum = TABLE[(sum ^ byte) & 255] ^ (sum >>> 8);
  return ~sum >>> 0;
}

/** Little-endian numbers of two or four bytes: pairs of [bytes, value]. */
function record(...pairs) {
  const view = new DataView(new ArrayBuffer(pairs.reduce((sum, [bytes]) => sum + bytes, 0)));
  let at = 0;
  for (const [bytes, value] of pairs) {
    if (bytes === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  return view.buffer;
}

/** A Blob of the files. Their contents are read one after the other, and not held. */
export async function zip(files) {
  const parts = [];
  const index = [];
  let place = 0;
  for (const file of files) {
    const name = new TextEncoder().encode(file.name);
    const sum = checksum(new Uint8Array(await file.arrayBuffer()));
    const facts = [[2, 20], [2, 0x800], [2, 0], [2, 0], [2, 0x21], [4, sum], [4, file.size], [4, file.size], [2, name.length], [2, 0]];
    const head = record([4, 0x04034b50], ...facts);
    parts.push(head, name, file);
    index.push(record([4, 0x02014b50], [2, 20], ...facts, [2, 0], [2, 0], [2, 0], [4, 0], [4, place]), name);
    place += head.byteLength + name.length + file.size;
  }
  const size = index.reduce((sum, part) => sum + part.byteLength, 0);
  const end = record([4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, place], [2, 0]);
  return new Blob([...parts, ...index, end], { type: "application/zip" });
}
