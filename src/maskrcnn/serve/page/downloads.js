// What was found, as files that other tools read.
import { eachPixel } from "./masks.js";

// images: [{ name, width, height, objects }], with the objects that are shown.
export function cocoOf(images) {
  const categories = new Map(), annotations = [];
  images.forEach((image, number) => image.objects.forEach((object) => {
    categories.set(object.category_id, object.category);
    annotations.push({
      id: annotations.length + 1, image_id: number + 1, category_id: object.category_id, iscrowd: 0,
      bbox: object.bbox, area: object.area, score: object.score,
      ...(object.segmentation && { segmentation: object.segmentation }),
      ...(object.keypoints && { keypoints: object.keypoints }),
    });
  }));
  return JSON.stringify({
    images: images.map(({ name, width, height }, number) => ({ id: number + 1, file_name: name, width, height })),
    annotations,
    categories: [...categories].map(([id, name]) => ({ id, name })),
  });
}

export function csvOf(images) {
  const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
  const rows = images.flatMap((image) => image.objects.map((object) => [
    quoted(image.name), quoted(object.category), object.score, ...object.bbox, object.area,
    object.spans.map(([first, end]) => `${first + 1} ${end - first}`).join(" "),
  ].join(",")));
  return ["image,class,score,x,y,width,height,area,EncodedPixels", ...rows, ""].join("\n");
}

// One image in the form of labelme: masks as pictures of their box, whose points are its first and last pixel.
export function labelmeOf(image) {
  const shapes = image.objects.filter((object) => object.area).map((object) => {
    const shape = { label: object.category, group_id: null, description: String(object.score), flags: {} };
    if (!object.segmentation) {
      const [x, y, width, height] = object.bbox;
      return { ...shape, shape_type: "rectangle", points: [[x, y], [x + width, y + height]] };
    }
    const [x1, y1, x2, y2] = object.box;
    return { ...shape, shape_type: "mask", points: [[x1, y1], [x2 - 1, y2 - 1]], mask: pictureOf(object, image.height) };
  });
  return JSON.stringify({
    version: "5.5.0", flags: {}, shapes, imagePath: image.name, imageData: null,
    imageHeight: image.height, imageWidth: image.width,
  });
}

function pictureOf(object, height) {
  const [x1, y1, x2, y2] = object.box;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [x2 - x1, y2 - y1];
  const context = canvas.getContext("2d"), pixels = context.createImageData(x2 - x1, y2 - y1);
  for (let at = 3; at < pixels.data.length; at += 4) pixels.data[at] = 255;
  eachPixel(object.spans, height, (x, y) => {
    pixels.data.fill(255, 4 * ((y - y1) * (x2 - x1) + x - x1), 4 * ((y - y1) * (x2 - x1) + x - x1) + 3);
  });
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1];
}

export function save(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
