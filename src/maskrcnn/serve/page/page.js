// The page of the server: images in, their objects on a canvas. All filters work on what the server has answered.
import { decodeRuns, eachPixel, measure, spansOf } from "./masks.js";
import { cocoOf, csvOf, labelmeOf, save } from "./downloads.js";

const $ = (id) => document.getElementById(id);
const stage = $("stage"), view = $("view"), picture = $("picture"), marked = $("marked"), camera = $("camera");
const images = []; // { file, name, bitmap, width, height, objects, problem, waiting }
const hidden = new Set(); // categories that are not shown
let current = -1, chosen = null, hovered = null, owners = new Int32Array(0);
let place = { x: 0, y: 0, zoom: 1 };

const least = () => Number($("score").value);
const shownOf = (image) => image.objects.filter((object) => object.score >= least() && !hidden.has(object.category));
const image = () => images[current];

async function add(files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/"));
  for (const file of pictures) {
    images.push({ file, name: file.name, bitmap: null, width: 0, height: 0, objects: [] });
    current = images.length - 1;
    await find(images[current]);
  }
  if (!pictures.length && files.length) say("This is no image", true);
}

async function find(one) {
  Object.assign(one, { waiting: true, problem: "" });
  if (one === image()) show(current);
  try {
    const answer = await ask(one.file);
    one.bitmap ||= await createImageBitmap(one.file);
    [one.width, one.height] = [answer.width, answer.height];
    one.objects = answer.objects.map((object, number) => prepared(object, number, answer.height));
  } catch (error) {
    one.problem = error.message || String(error);
  }
  one.waiting = false;
  if (one === image()) show(current);
}

async function listModels() { // another choice asks for all images again
  const { models } = await (await fetch("v1/model")).json();
  $("model").replaceChildren(...models.map(({ name }) => new Option(name, name)));
  $("models").hidden = models.length < 2;
  const startFilter = () => {
    const { thresholds } = models.find(({ name }) => name === $("model").value);
    $("score").value = Math.min(...thresholds);
    refresh();
  };
  startFilter();
  $("model").onchange = async () => {
    startFilter();
    for (const one of images) await find(one);
  };
}

// A full server says when to try again.
async function ask(file) {
  for (;;) {
    const model = $("model").value && `?model=${encodeURIComponent($("model").value)}`;
    const answer = await fetch(`v1/predict${model}`, { method: "POST", body: file });
    if (answer.status === 503) {
      await new Promise((done) => setTimeout(done, 1000 * Number(answer.headers.get("Retry-After") || 1)));
      continue;
    }
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.detail || answer.statusText);
    return content;
  }
}

function prepared(object, number, height) {
  const spans = object.segmentation ? spansOf(decodeRuns(object.segmentation.counts)) : [];
  const measured = object.segmentation ? measure(spans, height) : { area: object.bbox[2] * object.bbox[3], box: null };
  return { ...object, ...measured, spans, colour: colourOf(number) };
}

function colourOf(number) { // hues that lie far apart for numbers that follow each other
  const hue = (number * 0.618034) % 1, part = (shift) => {
    const x = Math.abs(((hue + shift) % 1) * 6 - 3) - 1;
    return Math.round(255 * (0.25 + 0.75 * Math.min(1, Math.max(0, x))));
  };
  return [part(0), part(2 / 3), part(1 / 3)];
}

function say(text, problem = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", problem);
}

function show(number) {
  current = number;
  chosen = hovered = null;
  const { name, waiting, problem, width, height } = image();
  say(`${number + 1}/${images.length} ${name}${waiting ? ": waiting" : problem ? `: ${problem}` : ""}`, Boolean(problem));
  $("hint").hidden = true;
  for (const canvas of [picture, marked]) [canvas.width, canvas.height] = [width || 1, height || 1];
  fit();
  refresh();
}

function refresh() { // after any filter
  $("score-shown").textContent = least().toFixed(2);
  for (const button of document.querySelectorAll(".save")) button.disabled = !images.some((one) => one.bitmap);
  $("previous").disabled = current < 1;
  $("next").disabled = current + 1 >= images.length;
  if (current < 0) return;
  const shown = shownOf(image());
  if (!shown.includes(chosen)) chosen = null;
  if (!shown.includes(hovered)) hovered = null;
  listClasses();
  listObjects(shown);
  paint(shown);
  mark();
}

function listClasses() {
  const all = image().objects.filter((object) => object.score >= least());
  const names = [...new Set(images.flatMap((one) => one.objects.map((object) => object.category)))].sort();
  $("classes").hidden = names.length < 2;
  $("classes").replaceChildren($("classes").firstElementChild, ...names.map((name) => {
    const label = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox";
    box.checked = !hidden.has(name);
    box.onchange = () => { hidden[box.checked ? "delete" : "add"](name); refresh(); };
    label.append(box, ` ${name} (${all.filter((object) => object.category === name).length})`);
    return label;
  }));
}

function listObjects(shown) {
  const total = shown.reduce((sum, object) => sum + object.area, 0);
  $("summary").textContent = image().bitmap ? `${shown.length} objects, ${Math.round(total).toLocaleString("en")} px` : "";
  $("objects").replaceChildren(...shown.map((object) => {
    const line = document.createElement("li"), button = document.createElement("button");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${object.colour})`;
    button.append(swatch);
    for (const text of [object.category, object.score.toFixed(2), `${Math.round(object.area).toLocaleString("en")} px`]) {
      button.append(Object.assign(document.createElement("span"), { textContent: text }));
    }
    button.onclick = () => choose(object === chosen ? null : object);
    button.onmouseenter = () => { hovered = object; mark(); };
    button.onmouseleave = () => { hovered = null; mark(); };
    button.setAttribute("aria-pressed", object === chosen);
    line.append(button);
    return line;
  }));
}

function choose(object) {
  chosen = object;
  const shown = shownOf(image());
  [...$("objects").children].forEach((line, number) => {
    line.firstChild.setAttribute("aria-pressed", shown[number] === object);
    if (shown[number] === object) { // in the list alone: the page stays where it is
      const list = $("objects"), top = line.offsetTop - list.offsetTop;
      list.scrollTop = Math.min(top, Math.max(list.scrollTop, top + line.offsetHeight - list.clientHeight));
    }
  });
  mark();
}

function paint(shown) { // better objects cover others
  const { bitmap, width, height } = image();
  if (!bitmap) return;
  const context = picture.getContext("2d", { willReadFrequently: true }), opacity = Number($("opacity").value);
  context.drawImage(bitmap, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  owners = new Int32Array(width * height);
  for (let number = shown.length; number > 0; number--) {
    eachPixel(shown[number - 1].spans, height, (x, y) => { owners[y * width + x] = number; });
  }
  for (let at = 0; at < owners.length; at++) {
    if (!owners[at]) continue;
    const { colour } = shown[owners[at] - 1];
    for (let c = 0; c < 3; c++) pixels.data[4 * at + c] += opacity * (colour[c] - pixels.data[4 * at + c]);
  }
  context.putImageData(pixels, 0, 0);
  for (const object of shown) {
    context.strokeStyle = context.fillStyle = `rgb(${object.colour})`;
    if (!object.segmentation) context.strokeRect(...object.bbox);
    const points = object.keypoints || [], side = Math.max(2, Math.round(Math.max(width, height) / 150));
    for (let at = 0; at < points.length; at += 3) {
      if (points[at + 2]) context.fillRect(points[at] - side / 2, points[at + 1] - side / 2, side, side);
    }
  }
}

function mark() { // the object under the pointer and the chosen one
  const { width, height } = image();
  const context = marked.getContext("2d");
  context.clearRect(0, 0, width, height);
  for (const object of new Set([hovered, chosen])) {
    if (!object) continue;
    context.fillStyle = "rgba(255, 255, 255, 0.5)";
    eachPixel(object.spans, height, (x, y) => context.fillRect(x, y, 1, 1));
    context.strokeStyle = object === chosen ? "#fff" : "#ddd";
    context.lineWidth = Math.max(1, 2 / place.zoom);
    context.strokeRect(...object.bbox);
  }
  stage.title = hovered ? `${hovered.category} ${hovered.score.toFixed(2)}, ${Math.round(hovered.area)} px` : "";
}

function objectAt(event) {
  if (current < 0 || !image().bitmap) return null;
  const box = picture.getBoundingClientRect(), { width, height } = image();
  const x = Math.floor((event.clientX - box.left) / box.width * width);
  const y = Math.floor((event.clientY - box.top) / box.height * height);
  if (x < 0 || y < 0 || x >= width || y >= height) return null;
  const shown = shownOf(image());
  const inside = ({ segmentation, bbox: [left, top, w, h] }) => !segmentation && x >= left && y >= top && x <= left + w && y <= top + h;
  return shown[owners[y * width + x] - 1] || shown.find(inside) || null;
}

function move(next) {
  place = next;
  view.style.transform = `translate(${place.x}px, ${place.y}px) scale(${place.zoom})`;
}

function fit() {
  if (current < 0 || !image().width) return;
  const { width, height } = image();
  const zoom = Math.min(stage.clientWidth / width, stage.clientHeight / height);
  move({ zoom, x: (stage.clientWidth - zoom * width) / 2, y: (stage.clientHeight - zoom * height) / 2 });
}

function zoomBy(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) { // the point x, y of the stage stays
  const zoom = Math.min(64, Math.max(0.02, place.zoom * factor));
  move({ zoom, x: x - (x - place.x) * zoom / place.zoom, y: y - (y - place.y) * zoom / place.zoom });
}

const pointers = new Map();
let dragged = 0;
stage.addEventListener("pointerdown", (event) => {
  if (!pointers.size) dragged = 0;
  pointers.set(event.pointerId, event);
  stage.setPointerCapture(event.pointerId);
});
stage.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) {
    const found = objectAt(event);
    if (found !== hovered) { hovered = found; mark(); }
    return;
  }
  const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
  const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
  if (other) { // two fingers: zoom about the one that rests
    const far = (one) => Math.max(1, Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY));
    const box = stage.getBoundingClientRect();
    zoomBy(far(event) / far(before), other.clientX - box.left, other.clientY - box.top);
  } else {
    move({ ...place, x: place.x + dx, y: place.y + dy });
  }
  dragged += Math.hypot(dx, dy);
  pointers.set(event.pointerId, event);
});
for (const kind of ["pointerup", "pointercancel"]) {
  stage.addEventListener(kind, (event) => {
    if (pointers.delete(event.pointerId) && kind === "pointerup" && dragged < 5 && current >= 0) choose(objectAt(event));
  });
}
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = stage.getBoundingClientRect();
  zoomBy(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });

document.addEventListener("dragover", (event) => { event.preventDefault(); stage.classList.add("over"); });
document.addEventListener("dragleave", () => stage.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  add(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => add(event.clipboardData.files));
$("files").onchange = (event) => { add(event.target.files).then(() => { event.target.value = ""; }); };

$("start").onclick = async () => {
  if (camera.srcObject) return stopCamera();
  try {
    camera.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) { // also where the page is not at localhost or https: then there are no mediaDevices
    return say(`No camera: ${error.message}`, true);
  }
  camera.hidden = $("shoot").hidden = false;
  await camera.play();
};
$("shoot").onclick = () => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [camera.videoWidth, camera.videoHeight];
  canvas.getContext("2d").drawImage(camera, 0, 0);
  stopCamera();
  canvas.toBlob((blob) => add([new File([blob], `camera-${images.length + 1}.png`, { type: "image/png" })]));
};
function stopCamera() {
  for (const track of camera.srcObject.getTracks()) track.stop();
  camera.srcObject = null;
  camera.hidden = $("shoot").hidden = true;
}

for (const id of ["score", "opacity"]) $(id).oninput = refresh;
$("previous").onclick = () => show(Math.max(0, current - 1));
$("next").onclick = () => show(Math.min(images.length - 1, current + 1));
$("larger").onclick = () => zoomBy(1.5);
$("smaller").onclick = () => zoomBy(1 / 1.5);
$("fit").onclick = fit;
addEventListener("resize", fit);

const keys = {
  "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), "0": fit,
  ArrowLeft: () => move({ ...place, x: place.x + 40 }), ArrowRight: () => move({ ...place, x: place.x - 40 }),
  ArrowUp: () => move({ ...place, y: place.y + 40 }), ArrowDown: () => move({ ...place, y: place.y - 40 }),
  n: () => $("next").click(), p: () => $("previous").click(), Escape: () => current >= 0 && choose(null),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input") || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

const answered = () => images.filter((one) => one.bitmap).map((one) => ({ ...one, objects: shownOf(one) }));
const stem = (name) => name.replace(/\.[^.]*$/, "");
$("coco").onclick = () => save("objects.json", cocoOf(answered()), "application/json");
$("csv").onclick = () => save("objects.csv", csvOf(answered()), "text/csv");
$("labelme").onclick = () => {
  for (const one of answered()) save(`${stem(one.name)}.json`, labelmeOf(one), "application/json");
};
$("png").onclick = () => picture.toBlob((blob) => save(`${stem(image().name)}-objects.png`, blob, "image/png"));

listModels();
refresh();
