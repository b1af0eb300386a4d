// The picture that Try, Compare and Inside look at: file, paste, drop, camera, sample. Shared by all.

import { byId, decode, fromAddress, make } from "./page.js";

const SAMPLES = [["street", "a drawn street"], ["cat", "a cat"], ["astronaut", "an astronaut"]];

export const picture = { blob: null, name: "", image: null, sample: "" };
const listeners = new Set();
const bars = new Set();

export const onPicture = (listener) => listeners.add(listener);

export async function usePicture(blob, name, sample = "") {
  let image = null;
  try {
    image = await decode(blob);
  } catch { /* the server may know the format; it will send a preview */ }
  Object.assign(picture, { blob, name, image, sample });
  bars.forEach((bar) => bar());
  listeners.forEach((listener) => listener());
}

// The server's JPEG, for formats that the browser does not know.
export async function usePreview(address) {
  picture.image = await fromAddress(address);
}

export async function useSample(name) {
  const response = await fetch(`/static/samples/${name}.jpg`);
  await usePicture(await response.blob(), `sample: ${name}`, name);
}

export function sourceBar(root, limits) {
  const file = make("input", { type: "file", accept: "image/*,.tif,.tiff,.jp2,.ppm" });
  file.addEventListener("change", () => {
    if (file.files[0]) take(file.files[0]);
    file.value = "";
  });
  const name = make("p", { class: "hint name" });
  const samples = SAMPLES.map(([key, text]) => make("button", {
    type: "button", title: text, "aria-label": `Sample: ${text}`, "aria-pressed": "false", "data-sample": key,
    onclick: () => useSample(key),
  }, make("img", { src: `/static/samples/${key}.jpg`, alt: "", loading: "lazy" })));
  const say = (message) => { name.textContent = message; };
  const take = (chosen) => {
    if (chosen.size > limits.picture_bytes) {
      say(`${chosen.name} is larger than ${limits.picture_bytes / 1e6} MB; make it smaller`);
      return;
    }
    usePicture(chosen, chosen.name);
  };
  root.replaceChildren(make("div", { class: "source" },
    make("label", { class: "button main", text: "Choose a picture" }, file),
    make("button", { type: "button", text: "Camera", onclick: () => takePicture(say) }),
    make("span", { class: "hint", text: "or paste, or drop" }), name,
    make("div", { class: "samples", role: "group", "aria-label": "Samples" }, ...samples)));
  bars.add(() => {
    say(picture.name);
    samples.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.sample === picture.sample)));
  });
  return take;
}

export function acceptDrops(element, take) {
  element.addEventListener("dragover", (event) => {
    event.preventDefault();
    element.classList.add("drop");
  });
  element.addEventListener("dragleave", () => element.classList.remove("drop"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("drop");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
}

export async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("the browser gives cameras only to pages at localhost or over https");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 } } });
  } catch (error) {
    throw new Error(error.name === "NotAllowedError" ? "the camera was not allowed" : "no camera can be opened");
  }
}

export async function snapshot(video, canvas = document.createElement("canvas")) {
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
}

async function takePicture(say) {
  const dialog = byId("camera"), view = byId("camera-view");
  let stream;
  try {
    stream = await openCamera();
  } catch (error) {
    say(error.message);
    return;
  }
  view.srcObject = stream;
  const end = () => stream.getTracks().forEach((track) => track.stop());
  dialog.addEventListener("close", end, { once: true });
  byId("camera-close").onclick = () => dialog.close();
  byId("camera-take").onclick = async () => {
    if (!view.videoWidth) return;
    await usePicture(await snapshot(view), "from the camera");
    dialog.close();
  };
  dialog.showModal();
}
