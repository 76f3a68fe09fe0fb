// Masks as COCO run lengths: runs go down the columns of the image and begin with background.

// The runs of a compressed string: five bits a character, and from the fourth run on the difference to the last run of
// the same colour.
export function decodeRuns(text) {
  const runs = [];
  for (let at = 0; at < text.length;) {
    let value = 0, shift = 0, code;
    do {
      code = text.charCodeAt(at++) - 48;
      value += (code & 31) * 2 ** shift;
      shift += 5;
    } while (code & 32);
    if (code & 16) value -= 2 ** shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

// Foreground spans as [first pixel, pixel after the last one], numbered down the columns from 0.
export function spansOf(runs) {
  const spans = [];
  let at = 0;
  runs.forEach((run, number) => {
    if (number % 2 && run) spans.push([at, at + run]);
    at += run;
  });
  return spans;
}

// Calls paint(x, y) for each pixel of the spans in an image of this height.
export function eachPixel(spans, height, paint) {
  for (const [first, end] of spans) {
    let x = Math.floor(first / height), y = first % height;
    for (let at = first; at < end; at++) {
      paint(x, y);
      if (++y === height) { y = 0; x++; }
    }
  }
}

// Area, and the tight box in pixels as [x1, y1, x2, y2] with x2 and y2 after the last pixel.
export function measure(spans, height) {
  let area = 0, x1 = Infinity, y1 = Infinity, x2 = 0, y2 = 0;
  for (const [first, end] of spans) {
    const left = Math.floor(first / height), right = Math.floor((end - 1) / height);
    area += end - first;
    x1 = Math.min(x1, left);
    x2 = Math.max(x2, right + 1);
    y1 = Math.min(y1, left === right ? first % height : 0);
    y2 = Math.max(y2, left === right ? ((end - 1) % height) + 1 : height);
  }
  return { area, box: area ? [x1, y1, x2, y2] : [0, 0, 0, 0] };
}
