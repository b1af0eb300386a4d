// Small things that every part of the page uses: elements, numbers, messages.

export const byId = (id) => document.getElementById(id);

// An element; text is always set as text, so nothing that a file or a network says becomes markup.
export function make(tag, { text, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  if (text !== undefined) element.textContent = text;
  element.append(...children.filter((child) => child !== null));
  return element;
}

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

export function count(number) {
  if (number >= 1e9) return [(number / 1e9).toFixed(2), "G"];
  if (number >= 1e6) return [(number / 1e6).toFixed(number >= 1e8 ? 0 : 2), "M"];
  return [(number / 1e3).toFixed(1), "k"];
}

export const milliseconds = (value) => value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);

export function tile(value, unit, label) {
  const box = make("div", { class: "tile" });
  box.append(make("b", {}, value, make("small", { text: unit })), make("span", { text: label }));
  return box;
}

export function say(element, message, bad = false) {
  element.textContent = message;
  element.classList.toggle("bad", bad);
}

// The picture in an address or a file, decoded upright.
export async function decode(blob) {
  return createImageBitmap(blob, { imageOrientation: "from-image" });
}

export async function fromAddress(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}
