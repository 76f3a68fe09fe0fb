// The page: two files in, the objects drawn on the image.
import { open, predict } from "./predict.js";

const [model, image, score, status, canvas] = ["model", "image", "score", "status", "canvas"].map((id) =>
  document.getElementById(id),
);
const context = canvas.getContext("2d", { willReadFrequently: true });
let opened, picture, objects;

const guarded = (doing, act) => async () => {
  try {
    status.textContent = doing;
    await new Promise((resolve) => setTimeout(resolve)); // shows the text before the work
    await act();
  } catch (error) {
    status.textContent = `Error: ${error.message}`;
  }
};

model.onchange = guarded("Opening the model ...", async () => {
  opened = await open(await model.files[0].arrayBuffer());
  image.disabled = false;
  status.textContent = "Choose an image.";
});

image.onchange = guarded("Finding objects ...", async () => {
  picture = await createImageBitmap(image.files[0]);
  [canvas.width, canvas.height, canvas.hidden] = [picture.width, picture.height, false];
  context.drawImage(picture, 0, 0);
  objects = await predict(opened, context.getImageData(0, 0, canvas.width, canvas.height));
  draw();
});

score.oninput = () => objects && draw();

function draw() {
  context.drawImage(picture, 0, 0);
  const shown = objects.filter((object) => object.score >= score.value);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  shown.forEach(({ runs }, number) => {
    const colour = [number * 97, number * 57 + 120, number * 151 + 60].map((value) => value % 256);
    for (const [start, stop] of runs)
      for (let at = start; at < stop; at++) {
        const place = ((at % canvas.height) * canvas.width + Math.floor(at / canvas.height)) * 4;
        for (let channel = 0; channel < 3; channel++)
          pixels.data[place + channel] = (pixels.data[place + channel] + colour[channel]) / 2;
      }
  });
  context.putImageData(pixels, 0, 0);
  context.font = "14px system-ui";
  for (const { box: [x1, y1, x2, y2], score: value, name } of shown) {
    context.strokeStyle = context.fillStyle = "yellow";
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    context.fillText(`${name} ${value.toFixed(2)}`, x1, Math.max(12, y1 - 3));
  }
  status.textContent = `${shown.length} objects, ${objects.length} with any score`;
}
