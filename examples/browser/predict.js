// A file of `maskrcnn export` in onnxruntime-web: images of any size in, objects in their pixels out.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1; // more need headers that make the page cross-origin isolated

// Opens a model: { session, config }. `bytes` is the ArrayBuffer of the file.
export async function open(bytes) {
  const header = metadataOf(new Uint8Array(bytes)).maskrcnn;
  if (header === undefined) throw new Error("expected a file of `maskrcnn export`, found another ONNX file");
  return { session: await ort.InferenceSession.create(bytes), config: JSON.parse(header).config };
}

// Finds objects in an ImageData: [{ box: [x1, y1, x2, y2], score, name, runs: [[start, stop], ...] }], best first.
// Runs count the pixels of the mask down the columns of the image. They are missing if the file has no masks.
export async function predict({ session, config }, image) {
  const { short_side, long_side, divisor } = config.image;
  const scale = Math.min(short_side / Math.min(image.width, image.height), long_side / Math.max(image.width, image.height));
  const [width, height] = [image.width, image.height].map((side) => Math.max(1, Math.floor(side * scale + 0.5)));
  const [columns, rows] = [width, height].map((side) => Math.ceil(side / divisor) * divisor);
  const small = resized(image, width, height);
  const pixels = new Uint8Array(3 * rows * columns);
  for (let channel = 0; channel < 3; channel++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        pixels[(channel * rows + y) * columns + x] = small[(y * width + x) * 3 + channel];
  const pair = (a, b) => new ort.Tensor("int64", BigInt64Array.of(BigInt(a), BigInt(b)), [1, 2]);
  const found = await session.run({
    pixels: new ort.Tensor("uint8", pixels, [1, 3, rows, columns]),
    sizes_hw: pair(height, width),
    original_hw: pair(image.height, image.width),
    scale_xy: new ort.Tensor("float32", Float32Array.of(image.width / width, image.height / height), [1, 2]),
  });
  const objects = [];
  found.scores.data.forEach((score, slot) => {
    if (score > 0)
      objects.push({
        box: Array.from(found.boxes.data.subarray(4 * slot, 4 * slot + 4)),
        score,
        name: config.categories[Number(found.labels.data[slot])].name,
        runs: [],
      });
  });
  const runs = found.runs?.data ?? [];
  for (let at = 0; at < runs.length; at += 4)
    objects[Number(runs[at + 1])].runs.push([Number(runs[at + 2]), Number(runs[at + 3])]);
  return objects;
}

const ONE = 2 ** 22; // weights are whole numbers, as Pillow's are, so that halves round as there

// The RGB values of an ImageData in another size, by the filter that widens when the image shrinks, as Pillow has it.
export function resized({ data, width, height }, newWidth, newHeight) {
  const rows = new Uint8Array(newWidth * height * 3);
  filter(width, newWidth, (x, start, weights) => {
    for (let y = 0; y < height; y++)
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        weights.forEach((weight, i) => (sum += weight * data[(y * width + start + i) * 4 + channel]));
        rows[(y * newWidth + x) * 3 + channel] = Math.floor(sum / ONE + 0.5);
      }
  });
  const result = new Uint8Array(newWidth * newHeight * 3);
  filter(height, newHeight, (y, start, weights) => {
    for (let at = 0; at < newWidth * 3; at++) {
      let sum = 0;
      weights.forEach((weight, i) => (sum += weight * rows[(start + i) * newWidth * 3 + at]));
      result[y * newWidth * 3 + at] = Math.floor(sum / ONE + 0.5);
    }
  });
  return result;
}

// Calls `use(place, first old pixel, weights)` for each new pixel of an axis.
function filter(oldSize, newSize, use) {
  const scale = oldSize / newSize, reach = Math.max(scale, 1);
  for (let place = 0; place < newSize; place++) {
    const centre = (place + 0.5) * scale;
    const start = Math.max(0, Math.floor(centre - reach + 0.5)), stop = Math.min(oldSize, Math.floor(centre + reach + 0.5));
    const weights = [];
    for (let old = start; old < stop; old++) weights.push(Math.max(0, 1 - Math.abs(old + 0.5 - centre) / reach));
    const sum = weights.reduce((a, b) => a + b);
    use(place, start, weights.map((weight) => Math.floor((weight / sum) * ONE + 0.5)));
  }
}

// The entries of `metadata_props` of an ONNX file, which onnxruntime-web does not give. They are field 14 of the
// protocol buffer, each with a key (field 1) and a value (field 2).
function metadataOf(bytes) {
  const text = new TextDecoder(), entries = {};
  for (const [field, part] of fields(bytes))
    if (field === 14) {
      const entry = Object.fromEntries(fields(part));
      entries[text.decode(entry[1])] = text.decode(entry[2]);
    }
  return entries;
}

// Yields the number and the bytes of each field of a protocol buffer that has bytes.
function* fields(bytes) {
  let at = 0;
  const number = () => {
    let value = 0, factor = 1;
    for (; ; factor *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = number(), kind = tag & 7;
    if (kind === 2) {
      const length = number();
      yield [tag >> 3, bytes.subarray(at, at + length)];
      at += length;
    } else if (kind === 0) number();
    else throw new Error("expected an ONNX file, found another one");
  }
}
