// A canvas with a picture and what was found in it.

import { fromAddress, make } from "./page.js";

const LARGEST = 1600;

export class Stage {
  constructor(root, { empty = "Choose a picture, or one of the samples." } = {}) {
    this.root = root;
    this.canvas = make("canvas", { role: "img", "aria-label": "The picture with the result over it", hidden: true });
    this.hint = make("div", { class: "empty" }, make("p", { text: empty }));
    this.tag = make("span", { class: "tag", hidden: true });
    root.replaceChildren(this.hint, this.canvas, this.tag);
    this.opacity = 0.5;
    this.only = null;
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => { this.tag.hidden = true; });
  }

  // Show a picture without result.
  setPicture(image) {
    this.image = image;
    this.answer = this.mask = this.labels = null;
    this.only = null;
    this.draw();
  }

  async setAnswer(image, answer, layer = answer.mask) {
    const mask = layer ? await fromAddress(layer) : null;
    // another layer than the mask, a difference map, has no classes
    Object.assign(this, { image, answer, mask, labels: null, only: null, foreign: layer !== answer.mask });
    this.draw();
  }

  set busy(value) { this.root.classList.toggle("busy", value); }

  draw() {
    const { canvas, image } = this;
    canvas.hidden = !image;
    this.hint.hidden = Boolean(image);
    if (!image) return;
    const scale = Math.min(1, LARGEST / Math.max(image.width, image.height));
    canvas.width = Math.max(1, Math.round(image.width * scale));
    canvas.height = Math.max(1, Math.round(image.height * scale));
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    if (this.mask) {
      pen.globalAlpha = this.opacity;
      pen.imageSmoothingEnabled = false;
      pen.drawImage(this.layer(), 0, 0, canvas.width, canvas.height);
      pen.globalAlpha = 1;
    }
    if (this.answer?.task === "detection") this.drawBoxes(pen);
  }

  drawBoxes(pen) {
    const factor = this.canvas.width / this.answer.picture.width;
    const size = Math.max(12, Math.round(Math.min(this.canvas.width, this.canvas.height) / 26));
    pen.lineWidth = Math.max(2, size / 6);
    pen.font = `600 ${size}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    pen.globalAlpha = Math.min(1, this.opacity + 0.2);
    this.answer.result.detections.forEach((one, index) => {
      if (this.only !== null && this.only !== index) return;
      const [left, top, right, bottom] = one.box.map((side) => side * factor);
      const colour = colourOf(one.label), text = `${one.label} ${Math.round(100 * one.score)} %`;
      pen.strokeStyle = pen.fillStyle = colour;
      pen.strokeRect(left, top, right - left, bottom - top);
      const high = size * 1.5, y = top >= high ? top - high : top;
      pen.fillRect(left, y, pen.measureText(text).width + size * 0.8, high);
      pen.fillStyle = "#fff";
      pen.fillText(text, left + size * 0.4, y + high / 2);
    });
    pen.globalAlpha = 1;
  }

  // Pixels of the mask, and from colours back to classes.
  read() {
    if (this.labels || this.foreign || !this.mask || !this.answer?.classes.length) return this.labels;
    const canvas = document.createElement("canvas");
    canvas.width = this.mask.width;
    canvas.height = this.mask.height;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(this.mask, 0, 0);
    const names = new Map(this.answer.classes.map((one) => [parseInt(one.colour.slice(1), 16), one]));
    this.labels = { canvas, pen, names, data: pen.getImageData(0, 0, canvas.width, canvas.height) };
    return this.labels;
  }

  // The mask as it is laid over the picture: all but a background, or one class alone.
  layer() {
    const background = this.answer.classes.findIndex((one) => one.name === "background");
    const whole = this.foreign || (this.only === null && background < 0);
    const labels = whole ? null : this.read();
    if (!labels) return this.mask;
    if (labels.drawn === this.only) return labels.canvas;
    const copy = new ImageData(new Uint8ClampedArray(labels.data.data), labels.canvas.width);
    const colour = parseInt(this.answer.classes[this.only ?? background].colour.slice(1), 16), pixels = copy.data;
    for (let i = 0; i < pixels.length; i += 4) {
      const same = ((pixels[i] << 16) | (pixels[i + 1] << 8) | pixels[i + 2]) === colour;
      if (same === (this.only === null)) pixels[i + 3] = 0;
    }
    labels.pen.putImageData(copy, 0, 0);
    labels.drawn = this.only;
    return labels.canvas;
  }

  point(event) {
    const labels = this.read();
    if (!labels) return;
    const box = this.canvas.getBoundingClientRect();
    // object-fit leaves margins around the picture
    const scale = Math.min(box.width / this.canvas.width, box.height / this.canvas.height);
    const x = (event.clientX - box.left - (box.width - this.canvas.width * scale) / 2) / scale / this.canvas.width;
    const y = (event.clientY - box.top - (box.height - this.canvas.height * scale) / 2) / scale / this.canvas.height;
    const { width, height, data } = labels.data;
    const column = Math.floor(x * width), row = Math.floor(y * height);
    const at = 4 * (row * width + column);
    const inside = column >= 0 && row >= 0 && column < width && row < height;
    const found = inside && labels.names.get((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]);
    this.tag.hidden = !found;
    if (found) this.tag.textContent = found.name;
  }
}

export function colourOf(label) {
  let hash = 7;
  for (const letter of label) hash = (hash * 31 + letter.codePointAt(0)) % 3600;
  return `hsl(${(hash * 137) % 360} 70% 38%)`;
}
